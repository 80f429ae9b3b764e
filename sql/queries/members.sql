-- name: get_member^
SELECT * FROM members WHERE tenant_id = :tenant_id AND member_id = :member_id;

-- name: lock_member^
-- NO KEY: a cycle that names this member in a foreign key need not wait.
SELECT * FROM members WHERE tenant_id = :tenant_id AND member_id = :member_id FOR NO KEY UPDATE;

-- name: list_members
-- In the order they came; `search` looks into names and numbers, `tier` is a code.
SELECT m.* FROM members AS m
WHERE m.tenant_id = :tenant_id
  AND m.member_id > :after::uuid
  AND (:status::text IS NULL OR m.status = :status)
  AND (:tier::text IS NULL OR m.tier_id = (
      SELECT t.tier_id FROM tiers AS t WHERE t.tenant_id = :tenant_id AND t.code = :tier
  ))
  AND (:search::text IS NULL
       OR position(lower(:search) IN lower(m.full_name)) > 0
       OR position(upper(:search) IN upper(m.member_number)) > 0)
ORDER BY m.member_id
LIMIT :limit;

-- name: insert_member^
-- An application: no number yet.
INSERT INTO members (tenant_id, full_name, gender, status, tier_id, agent_id, phone, email)
VALUES (:tenant_id, :full_name, :gender, 'Pending', :tier_id, :agent_id, :phone, :email)
RETURNING *;

-- name: member_series$
-- What the numbers given this year to members of a gender begin with: UML-2025-F. As the import has it.
SELECT prefix || '-' || to_char(now() AT TIME ZONE 'UTC', 'YYYY') || '-' || :gender::text
FROM tenants WHERE tenant_id = :tenant_id;

-- name: update_member^
-- No row: the version is not the present one, and nothing changed. The dates of a status come with it.
UPDATE members
SET full_name = :full_name, gender = :gender, status = :status, tier_id = :tier_id, agent_id = :agent_id,
    phone = :phone, email = :email, member_number = :member_number, status_reason = :status_reason,
    died_on = :died_on,
    reviewed_at = coalesce(reviewed_at, CASE WHEN :status = 'UnderReview' THEN clock_timestamp() END),
    approved_at = coalesce(approved_at, CASE WHEN :status = 'Approved' THEN clock_timestamp() END),
    joined_on = coalesce(joined_on, CASE WHEN :status = 'Approved' THEN (now() AT TIME ZONE 'UTC')::date END)
WHERE tenant_id = :tenant_id AND member_id = :member_id AND version = :version
RETURNING *;

-- name: lock_tier_shared!
SELECT lock_tier_shared(:tier_id);

-- name: close_membership!
-- The member owes nothing from this instant on. A clock that was set back must not undo the past.
UPDATE tier_memberships SET valid_to = greatest(clock_timestamp(), valid_from + interval '1 microsecond')
WHERE tenant_id = :tenant_id AND member_id = :member_id AND valid_to IS NULL;

-- name: open_membership!
INSERT INTO tier_memberships (tenant_id, tier_id, member_id, valid_from)
VALUES (:tenant_id, :tier_id, :member_id, clock_timestamp());
