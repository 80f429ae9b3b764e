-- migrate:up
-- Why: the few things that must cross tenants. Each returns no more than its caller may know.

CREATE FUNCTION authenticate_key(key uuid, secret bytea)
RETURNS TABLE (tenant_id uuid, user_id uuid, role text, is_active boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT k.tenant_id, k.user_id, u.role, u.is_active
    FROM api_keys AS k
    JOIN users AS u ON u.tenant_id = k.tenant_id AND u.user_id = k.user_id
    WHERE k.key_id = key
      AND k.secret_sha256 = sha256(secret)
      AND k.revoked_at IS NULL
      AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp())
$$;
COMMENT ON FUNCTION authenticate_key IS 'Who holds this key: a row only for the whole, live secret. One call a request.';
REVOKE ALL ON FUNCTION authenticate_key FROM public;
GRANT EXECUTE ON FUNCTION authenticate_key TO guthi_app;

CREATE FUNCTION tenant_ids() RETURNS SETOF uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT tenant_id FROM tenants ORDER BY tenant_id
$$;
COMMENT ON FUNCTION tenant_ids IS 'For maintenance, which then works tenant by tenant.';
REVOKE ALL ON FUNCTION tenant_ids FROM public;
GRANT EXECUTE ON FUNCTION tenant_ids TO guthi_app;

CREATE FUNCTION job_counts() RETURNS TABLE (state text, jobs bigint, oldest_seconds double precision)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT j.state, count(*), extract(epoch FROM clock_timestamp() - min(j.created_at))::double precision
    FROM batch_jobs AS j GROUP BY j.state
$$;
COMMENT ON FUNCTION job_counts IS 'For the metrics: sums over all tenants, naming none.';
REVOKE ALL ON FUNCTION job_counts FROM public;
GRANT EXECUTE ON FUNCTION job_counts TO guthi_app;

CREATE TABLE maintenance_runs (
    run_id uuid PRIMARY KEY DEFAULT uuidv7(),
    name text NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    result jsonb,
    error text,
    CHECK ((result IS NULL) <> (error IS NULL))
);
COMMENT ON TABLE maintenance_runs IS 'Every run of a cron job, of whichever worker. It speaks of no tenant.';
CREATE INDEX maintenance_runs_name ON maintenance_runs (name, started_at DESC);
GRANT SELECT, INSERT, DELETE ON maintenance_runs TO guthi_app;

-- migrate:down
