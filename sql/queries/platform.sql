-- name: read_clock$
-- The database's clock, in UTC: the one that everybody shares.
SELECT clock_timestamp() AT TIME ZONE 'UTC';

-- name: tenant_ids
SELECT tenant_ids AS tenant_id FROM tenant_ids();

-- name: job_counts
-- Over all tenants: how many jobs of a kind are in a state, and for how long the oldest has been.
SELECT kind, state, jobs, oldest_seconds FROM job_counts_by_kind();

-- name: make_partitions
SELECT make_partitions AS name FROM make_partitions(:months_ahead);

-- name: insert_tenant$
INSERT INTO tenants (name, prefix) VALUES (:name, :prefix) RETURNING tenant_id;

-- name: record_maintenance_run^
INSERT INTO maintenance_runs (name, started_at, result, error, requested_by)
VALUES (:name, :started_at, :result, :error, :requested_by)
RETURNING *;

-- name: list_maintenance_runs
-- Newest first. Who asked for it is told in that user's tenant alone.
SELECT r.run_id, r.name, r.started_at, r.ended_at, r.result, r.error, u.user_id AS requested_by
FROM maintenance_runs AS r
LEFT JOIN users AS u ON u.tenant_id = :tenant_id AND u.user_id = r.requested_by
WHERE r.name = :name AND r.run_id < :before::uuid
ORDER BY r.run_id DESC
LIMIT :limit;

-- name: last_maintenance_runs
-- The newest of each name, as in list_maintenance_runs.
SELECT r.run_id, r.name, r.started_at, r.ended_at, r.result, r.error, u.user_id AS requested_by
FROM unnest(:names::text[]) AS wanted (name)
CROSS JOIN LATERAL (
    SELECT * FROM maintenance_runs AS m WHERE m.name = wanted.name ORDER BY m.run_id DESC LIMIT 1
) AS r
LEFT JOIN users AS u ON u.tenant_id = :tenant_id AND u.user_id = r.requested_by;

-- name: take_maintenance$
-- Whether nobody else runs it by hand; held until the transaction ends.
SELECT pg_try_advisory_xact_lock(hashtextextended('maintenance ' || :name::text, 0));

-- name: maintenance_in_hand
-- Which of these somebody runs by hand now.
SELECT wanted.name FROM unnest(:names::text[]) AS wanted (name)
JOIN pg_locks AS l ON l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (l.classid::bigint << 32) | l.objid::bigint = hashtextextended('maintenance ' || wanted.name, 0);

-- name: forget_maintenance_runs!
DELETE FROM maintenance_runs WHERE name = :name AND started_at < clock_timestamp() - :keep::interval;

-- name: maintenance_health
-- Of each of :names that ever ran: seconds since it last succeeded (since its first run when it never did), and the
-- result of that run.
SELECT
    asked.name, succeeded.result,
    extract(epoch FROM clock_timestamp() - coalesce(succeeded.ended_at, began.started_at))::double precision AS age_seconds
FROM unnest(:names::text[]) AS asked (name)
CROSS JOIN LATERAL (
    SELECT r.started_at FROM maintenance_runs AS r WHERE r.name = asked.name ORDER BY r.started_at LIMIT 1
) AS began
LEFT JOIN LATERAL (
    SELECT r.ended_at, r.result FROM maintenance_runs AS r
    WHERE r.name = asked.name AND r.error IS NULL
    ORDER BY r.started_at DESC LIMIT 1
) AS succeeded ON true;

-- name: ping$
SELECT 1;
