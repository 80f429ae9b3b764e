-- name: count_owing$
-- Members after :cursor who owe: in the tier at as_of, without the deceased.
SELECT count(*) FROM tier_memberships
WHERE tenant_id = :tenant_id AND tier_id = :tier_id AND member_id > :cursor::uuid
  AND valid_from <= :as_of AND (valid_to IS NULL OR valid_to > :as_of)
  AND member_id <> :deceased_member_id;

-- name: count_owing_up_to$
-- The same, but no further than :most: what `auto` decides by.
SELECT count(*) FROM (
    SELECT FROM tier_memberships
    WHERE tenant_id = :tenant_id AND tier_id = :tier_id
      AND valid_from <= :as_of AND (valid_to IS NULL OR valid_to > :as_of)
      AND member_id <> :deceased_member_id
    LIMIT :most
) AS probe;

-- name: last_owing$
SELECT member_id FROM tier_memberships
WHERE tenant_id = :tenant_id AND tier_id = :tier_id
  AND valid_from <= :as_of AND (valid_to IS NULL OR valid_to > :as_of)
  AND member_id <> :deceased_member_id
ORDER BY member_id DESC
LIMIT 1;

-- name: find_owing$
-- The member :skip + 1 places after :cursor: an index-only hop. The bounds are bare parameters: joined in, or
-- in a coalesce, a generic plan takes them for a filter and reads the tier from its start (45 ms for 1).
SELECT member_id FROM tier_memberships
WHERE tenant_id = :tenant_id AND tier_id = :tier_id
  AND member_id > :cursor::uuid
  AND member_id <= :upper::uuid
  AND valid_from <= :as_of AND (valid_to IS NULL OR valid_to > :as_of)
  AND member_id <> :deceased_member_id
ORDER BY member_id
OFFSET :skip LIMIT 1;

-- name: insert_contributions!
-- One row for each member of the range who owes. The primary key is no help here but the guard that shouts.
INSERT INTO contributions (tenant_id, cycle_id, member_id, contribution_amount, due_date)
SELECT tenant_id, :cycle_id, member_id, :contribution_amount, :due_date
FROM tier_memberships
WHERE tenant_id = :tenant_id AND tier_id = :tier_id
  AND member_id > :cursor::uuid AND member_id <= :bound::uuid
  AND valid_from <= :as_of AND (valid_to IS NULL OR valid_to > :as_of)
  AND member_id <> :deceased_member_id;

-- name: count_contributions$
SELECT count(*) FROM contributions
WHERE tenant_id = :tenant_id AND cycle_id = :cycle_id AND member_id > :cursor::uuid;

-- name: count_contributions_between$
SELECT count(*) FROM contributions
WHERE tenant_id = :tenant_id AND cycle_id = :cycle_id AND member_id > :cursor::uuid AND member_id <= :bound::uuid;

-- name: last_contribution$
SELECT member_id FROM contributions WHERE tenant_id = :tenant_id AND cycle_id = :cycle_id
ORDER BY member_id DESC LIMIT 1;

-- name: find_contribution$
SELECT member_id FROM contributions
WHERE tenant_id = :tenant_id AND cycle_id = :cycle_id
  AND member_id > :cursor::uuid
  AND member_id <= :upper::uuid
ORDER BY member_id
OFFSET :skip LIMIT 1;

-- name: delete_contributions!
-- What a cancelled cycle leaves behind.
DELETE FROM contributions
WHERE tenant_id = :tenant_id AND cycle_id = :cycle_id
  AND member_id > :cursor::uuid AND member_id <= :bound::uuid;

-- name: list_contributions
-- In the order of the key; none while the cycle is not whole: rows half made are nobody's business.
SELECT
    b.contribution_id, b.member_id, m.member_number, m.full_name AS member_name, b.contribution_amount,
    b.contribution_status, b.due_date
FROM (
    SELECT * FROM contributions
    WHERE tenant_id = :tenant_id AND cycle_id = :cycle_id AND member_id > :after::uuid
    ORDER BY member_id
    LIMIT :limit
) AS b
JOIN members AS m ON m.tenant_id = b.tenant_id AND m.member_id = b.member_id
ORDER BY b.member_id;

-- name: search_contributions
-- Those of members whose number begins with :search, in the same order. The members lead: what many have is soon
-- found, what few have costs one pass over the members.
SELECT
    b.contribution_id, b.member_id, m.member_number, m.full_name AS member_name, b.contribution_amount,
    b.contribution_status, b.due_date
FROM members AS m
JOIN contributions AS b ON b.tenant_id = m.tenant_id AND b.cycle_id = :cycle_id AND b.member_id = m.member_id
WHERE m.tenant_id = :tenant_id AND m.member_id > :after::uuid
  AND starts_with(upper(m.member_number), upper(:search))
ORDER BY m.member_id
LIMIT :limit;

-- name: get_contribution^
SELECT
    b.contribution_id, b.member_id, m.member_number, m.full_name AS member_name, b.contribution_amount,
    b.contribution_status, b.due_date
FROM contributions AS b
JOIN members AS m ON m.tenant_id = b.tenant_id AND m.member_id = b.member_id
WHERE b.tenant_id = :tenant_id AND b.cycle_id = :cycle_id AND b.member_id = :member_id;
