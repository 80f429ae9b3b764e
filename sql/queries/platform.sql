-- name: read_clock$
-- The database's clock, in UTC: the one that everybody shares.
SELECT clock_timestamp() AT TIME ZONE 'UTC';

-- name: tenant_ids
SELECT tenant_ids AS tenant_id FROM tenant_ids();

-- name: job_counts
SELECT state, jobs, oldest_seconds FROM job_counts();

-- name: make_partitions
SELECT make_partitions AS name FROM make_partitions(:months_ahead);

-- name: insert_tenant$
INSERT INTO tenants (name, prefix) VALUES (:name, :prefix) RETURNING tenant_id;

-- name: record_maintenance_run!
INSERT INTO maintenance_runs (name, started_at, result, error) VALUES (:name, :started_at, :result, :error);

-- name: forget_maintenance_runs!
DELETE FROM maintenance_runs WHERE name = :name AND started_at < clock_timestamp() - :keep::interval;

-- name: ping$
SELECT 1;
