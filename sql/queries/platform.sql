-- name: read_clock$
-- The database's clock, in UTC: the one that everybody shares.
SELECT clock_timestamp() AT TIME ZONE 'UTC';

-- name: authenticate_key^
-- Who holds this key. No row: it opens nothing.
SELECT tenant_id, user_id, role, is_active FROM authenticate_key(:key_id, :secret);

-- name: tenant_ids
SELECT tenant_ids AS tenant_id FROM tenant_ids();

-- name: job_counts
SELECT state, jobs, oldest_seconds FROM job_counts();

-- name: make_contribution_partitions
SELECT make_contribution_partitions AS name FROM make_contribution_partitions(:months_ahead);

-- name: insert_tenant$
INSERT INTO tenants (name, prefix) VALUES (:name, :prefix) RETURNING tenant_id;

-- name: insert_user$
INSERT INTO users (tenant_id, email, name, role) VALUES (:tenant_id, :email, :name, :role) RETURNING user_id;

-- name: insert_api_key$
INSERT INTO api_keys (tenant_id, user_id, secret_sha256) VALUES (:tenant_id, :user_id, sha256(:secret))
RETURNING key_id;

-- name: get_tenant_prefix$
SELECT prefix FROM tenants WHERE tenant_id = :tenant_id;

-- name: record_maintenance_run!
INSERT INTO maintenance_runs (name, started_at, result, error) VALUES (:name, :started_at, :result, :error);

-- name: forget_maintenance_runs!
DELETE FROM maintenance_runs WHERE name = :name AND started_at < clock_timestamp() - :keep::interval;

-- name: ping$
SELECT 1;
