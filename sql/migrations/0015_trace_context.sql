-- migrate:up
-- Why: who watches from outside follows a job: its trace, what stands in which state, and since when.

ALTER TABLE batch_jobs ADD COLUMN trace_context text;
COMMENT ON COLUMN batch_jobs.trace_context IS
    'The W3C traceparent of what started it, so that every worker carries on the same trace; NULL: nobody traces.';

-- job_counts() stays: workers of the version before ask it until they are gone.
CREATE FUNCTION job_counts_by_kind() RETURNS TABLE (kind text, state text, jobs bigint, oldest_seconds double precision)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT j.kind, j.state, count(*), extract(epoch FROM clock_timestamp() - min(j.updated_at))::double precision
    FROM batch_jobs AS j GROUP BY j.kind, j.state
$$;
COMMENT ON FUNCTION job_counts_by_kind IS
    'For the metrics: sums over all tenants, naming none. oldest_seconds: since that job was started, planned, or last'
    ' changed its state; a retry of an old job starts anew.';
REVOKE ALL ON FUNCTION job_counts_by_kind FROM public;
GRANT EXECUTE ON FUNCTION job_counts_by_kind TO guthi_app;

-- migrate:down
