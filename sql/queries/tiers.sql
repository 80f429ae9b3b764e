-- name: insert_tier^
INSERT INTO tiers (tenant_id, code, name, contribution_amount, benefit_amount)
VALUES (:tenant_id, :code, :name, :contribution_amount, :benefit_amount)
RETURNING *;

-- name: get_tier^
SELECT * FROM tiers WHERE tenant_id = :tenant_id AND tier_id = :tier_id;

-- name: list_tiers
SELECT * FROM tiers
WHERE tenant_id = :tenant_id AND tier_id > :after::uuid
ORDER BY tier_id
LIMIT :limit;

-- name: update_tier^
-- What is NULL stays. No row: the version is not the present one, and nothing changed.
UPDATE tiers
SET name = coalesce(:name, name),
    contribution_amount = coalesce(:contribution_amount, contribution_amount),
    benefit_amount = coalesce(:benefit_amount, benefit_amount)
WHERE tenant_id = :tenant_id AND tier_id = :tier_id AND version = :version
RETURNING *;
