-- name: insert_cycle^
-- The caller holds the tier's exclusive lock: only then may as_of be read from the clock.
INSERT INTO contribution_cycles (
    tenant_id, cycle_code, claim_id, tier_id, deceased_member_id, contribution_amount, benefit_amount,
    as_of, start_date, deadline, created_by
)
SELECT
    :tenant_id, :cycle_code, :claim_id, :tier_id, :deceased_member_id, :contribution_amount, :benefit_amount,
    clock.at, (clock.at AT TIME ZONE 'UTC')::date, (clock.at AT TIME ZONE 'UTC')::date + :duration_days::integer,
    :created_by
FROM (SELECT clock_timestamp() AS at) AS clock
RETURNING *;

-- name: lock_tier_exclusive!
SELECT lock_tier_exclusive(:tier_id);

-- name: lock_cycle^
SELECT * FROM contribution_cycles WHERE tenant_id = :tenant_id AND cycle_id = :cycle_id FOR UPDATE;

-- name: set_cycle_status^
-- The only query that changes a status. No row: the cycle was not in :from_status, and nothing changed.
UPDATE contribution_cycles
SET cycle_status = :status, total_members = coalesce(:total_members, total_members)
WHERE tenant_id = :tenant_id AND cycle_id = :cycle_id AND cycle_status = :from_status
RETURNING *;

-- name: get_cycle^
SELECT * FROM cycles_with_jobs WHERE tenant_id = :tenant_id AND cycle_id = :cycle_id;

-- name: list_cycles
-- Newest first; `before` is the last id of the page before.
SELECT * FROM cycles_with_jobs
WHERE tenant_id = :tenant_id
  AND (:status::text IS NULL OR cycle_status = :status)
  AND cycle_id < :before::uuid
ORDER BY cycle_id DESC
LIMIT :limit;

-- name: list_job_names
-- What people call who started a job, and the cycle that it works for.
SELECT j.job_id, u.name AS created_by_name, c.cycle_code AS subject_code
FROM batch_jobs AS j
LEFT JOIN users AS u ON u.tenant_id = j.tenant_id AND u.user_id = j.created_by
LEFT JOIN contribution_cycles AS c ON c.tenant_id = j.tenant_id AND c.cycle_id = j.subject_id
WHERE j.tenant_id = :tenant_id AND j.job_id = any(:job_ids::uuid[]);
