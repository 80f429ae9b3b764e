-- migrate:up
-- Why: operators see who works on what and how fast it went, and understand an error from where it came.

ALTER TABLE batch_jobs ADD COLUMN error_detail jsonb;
COMMENT ON COLUMN batch_jobs.error_detail IS
    'Of a Failed job: errorClass, message, statement, cursor, shardNo, attempt, retriable, advice.';
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX batch_jobs_open ON batch_jobs (tenant_id, job_id) WHERE state IN ('Queued', 'Processing', 'Paused');
COMMENT ON INDEX batch_jobs_open IS 'What operators watch; as small as the work at hand.';

ALTER TABLE batch_job_shards ADD COLUMN lease_holder text, ADD COLUMN batch_rows integer;
COMMENT ON COLUMN batch_job_shards.lease_holder IS 'The worker that took the last lease; it holds the shard only while lease_token says so.';
COMMENT ON COLUMN batch_job_shards.batch_rows IS 'Keys of the last batch.';

CREATE TABLE batch_job_samples (
    tenant_id uuid NOT NULL,
    job_id uuid NOT NULL,
    at timestamptz NOT NULL,
    shard_no integer NOT NULL,
    processed bigint NOT NULL,
    PRIMARY KEY (tenant_id, job_id, at, shard_no)
);
COMMENT ON TABLE batch_job_samples IS
    'How far a shard was when, for the rate over the run: at most two a second and shard, and its last batch. No foreign'
    ' key to the job: a batch would lock its row, before which the lock order puts nothing.';
SELECT protect_tenant_table('batch_job_samples');
GRANT SELECT, INSERT, DELETE ON batch_job_samples TO guthi_app;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX batch_job_samples_at ON batch_job_samples (tenant_id, at);
COMMENT ON INDEX batch_job_samples_at IS 'purge_job_samples takes the oldest.';

CREATE OR REPLACE VIEW cycles_with_jobs WITH (security_invoker = true) AS
SELECT
    c.*, j.job_id, j.state AS job_state, j.total AS job_total, j.error AS job_error,
    j.started_at AS job_started_at, j.completed_at AS job_completed_at, s.processed,
    t.code AS tier_code, t.name AS tier_name, u.name AS created_by_name
FROM contribution_cycles AS c
JOIN tiers AS t ON t.tenant_id = c.tenant_id AND t.tier_id = c.tier_id
JOIN users AS u ON u.tenant_id = c.tenant_id AND u.user_id = c.created_by
LEFT JOIN batch_jobs AS j
    ON j.tenant_id = c.tenant_id AND j.subject_id = c.cycle_id AND j.kind = 'create_contributions'
LEFT JOIN LATERAL (
    SELECT sum(processed)::bigint AS processed FROM batch_job_shards
    WHERE tenant_id = j.tenant_id AND job_id = j.job_id
) AS s ON true;

-- squawk-ignore require-concurrent-index-creation
CREATE INDEX events_notices ON events (tenant_id, position) WHERE event_type IN (
    'ContributionCycleActivated', 'ContributionCycleFailed', 'ContributionCycleCancelled'
);
COMMENT ON INDEX events_notices IS 'Who started a cycle is told how it ended; an import''s million events must not be in the way.';

-- squawk-ignore require-concurrent-index-creation
CREATE INDEX maintenance_runs_newest ON maintenance_runs (name, run_id);
ALTER TABLE maintenance_runs ADD COLUMN requested_by uuid;
COMMENT ON COLUMN maintenance_runs.requested_by IS 'The user who asked for it; NULL: cron or the command. Shown in that user''s tenant only.';

-- migrate:down
