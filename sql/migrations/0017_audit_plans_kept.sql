-- migrate:up
-- Why: a job's transactions have each of their statements planned anew, and with them went the audit log's own, which
-- are of no table that grows from one state to another: planning them took twice as long as running them.

ALTER FUNCTION write_audit() SET plan_cache_mode = 'auto';

-- migrate:down
