-- migrate:up
-- Why: who watches all jobs of a society hears of each that ended, also of one that nobody saw while it ran.

-- A row a job: writers wait for milliseconds.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX batch_jobs_ended ON batch_jobs (tenant_id, completed_at) WHERE completed_at IS NOT NULL;
COMMENT ON INDEX batch_jobs_ended IS 'Which jobs ended lately: asked several times a second while somebody watches.';

-- migrate:down
