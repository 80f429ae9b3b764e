-- migrate:up
-- Why: the engine's own tables. They know no domain: a job is a kind, a subject and parameters.

CREATE TABLE batch_jobs (
    tenant_id uuid NOT NULL REFERENCES tenants,
    job_id uuid NOT NULL DEFAULT uuidv7(),
    kind text NOT NULL,
    subject_id uuid NOT NULL,
    params jsonb NOT NULL DEFAULT '{}',
    state text NOT NULL DEFAULT 'Queued'
    CHECK (state IN ('Queued', 'Processing', 'Paused', 'Completed', 'Failed', 'Cancelled')),
    priority integer NOT NULL DEFAULT 0 CHECK (priority BETWEEN 0 AND 3600),
    total bigint,
    attempts integer NOT NULL DEFAULT 0,
    error text,
    created_by uuid,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at timestamptz,
    completed_at timestamptz,
    version integer NOT NULL DEFAULT 1,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, job_id),
    UNIQUE (tenant_id, kind, subject_id)
);
COMMENT ON COLUMN batch_jobs.subject_id IS 'What the job works for (a cycle, an import): one job of a kind for each.';
COMMENT ON COLUMN batch_jobs.priority IS 'Head start in the queue, in seconds.';
COMMENT ON COLUMN batch_jobs.total IS 'Keys to walk, counted by the plan; NULL until planned.';
COMMENT ON COLUMN batch_jobs.attempts IS 'How often an operator retried it after it failed.';
COMMENT ON COLUMN batch_jobs.error IS 'Why it is Failed, or why its last attempt did not get on.';
CREATE INDEX batch_jobs_unfinished ON batch_jobs (tenant_id, job_id) WHERE state IN ('Queued', 'Processing');
COMMENT ON INDEX batch_jobs_unfinished IS 'What the sweeper looks through; as small as the work at hand.';
CREATE TRIGGER bump_version BEFORE UPDATE ON batch_jobs FOR EACH ROW EXECUTE FUNCTION bump_version();
SELECT protect_tenant_table('batch_jobs');
GRANT SELECT, INSERT, UPDATE ON batch_jobs TO guthi_app;

CREATE TABLE batch_job_shards (
    tenant_id uuid NOT NULL,
    job_id uuid NOT NULL,
    shard_no integer NOT NULL,
    lower text,
    upper text,
    cursor text,
    processed bigint NOT NULL DEFAULT 0,
    done boolean NOT NULL DEFAULT false,
    lease_token uuid,
    lease_expires_at timestamptz,
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,
    error text,
    PRIMARY KEY (tenant_id, job_id, shard_no),
    CHECK ((lease_token IS NULL) = (lease_expires_at IS NULL)),
    CHECK (NOT (done AND lease_token IS NOT NULL)),
    FOREIGN KEY (tenant_id, job_id) REFERENCES batch_jobs
) WITH (fillfactor = 50);
COMMENT ON TABLE batch_job_shards IS 'A range of a job''s keys (lower, upper], walked by one lease holder at a time.';
COMMENT ON COLUMN batch_job_shards.lower IS 'Keys above this; NULL: from the first. Keys are text here, whatever the job walks.';
COMMENT ON COLUMN batch_job_shards.upper IS 'Keys up to and with this; NULL: to the last.';
COMMENT ON COLUMN batch_job_shards.cursor IS 'The last key done, committed with the rows of its batch.';
COMMENT ON COLUMN batch_job_shards.lease_token IS 'Fencing token: who writes must hold it. NULL: free. Pause and cancel take it away.';
COMMENT ON COLUMN batch_job_shards.attempts IS 'Failures and lost leases since the last progress.';
SELECT protect_tenant_table('batch_job_shards');
GRANT SELECT, INSERT, UPDATE ON batch_job_shards TO guthi_app;

CREATE TABLE batch_job_log (
    tenant_id uuid NOT NULL,
    job_id uuid NOT NULL,
    entry_no bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    level text NOT NULL DEFAULT 'info' CHECK (level IN ('info', 'warning', 'error')),
    event text NOT NULL,
    fields jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (tenant_id, job_id, entry_no),
    FOREIGN KEY (tenant_id, job_id) REFERENCES batch_jobs
);
COMMENT ON TABLE batch_job_log IS 'What happened to a job, for people: steps, retries, refused rows; not every batch.';
SELECT protect_tenant_table('batch_job_log');
GRANT SELECT, INSERT ON batch_job_log TO guthi_app;

CREATE FUNCTION due_jobs(parallelism integer) RETURNS TABLE (tenant_id uuid, job_id uuid, priority integer)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT j.tenant_id, j.job_id, j.priority
    FROM batch_jobs AS j
    CROSS JOIN LATERAL (
        SELECT
            count(*) FILTER (WHERE s.lease_expires_at >= clock_timestamp()) AS running,
            count(*) FILTER (
                WHERE (s.lease_expires_at IS NULL OR s.lease_expires_at < clock_timestamp())
                AND (s.next_attempt_at IS NULL OR s.next_attempt_at <= clock_timestamp())
            ) AS waiting
        FROM batch_job_shards AS s
        WHERE s.tenant_id = j.tenant_id AND s.job_id = j.job_id AND NOT s.done
    ) AS shards
    WHERE j.state IN ('Queued', 'Processing') AND shards.waiting > 0 AND shards.running < parallelism
    ORDER BY j.created_at
$$;
COMMENT ON FUNCTION due_jobs IS
    'Across tenants, so it returns ids alone: the jobs of which fewer shards run than should.';
REVOKE ALL ON FUNCTION due_jobs FROM public;
GRANT EXECUTE ON FUNCTION due_jobs TO guthi_app;

-- migrate:down
