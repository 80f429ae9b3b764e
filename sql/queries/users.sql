-- name: insert_user^
INSERT INTO users (tenant_id, email, name, role) VALUES (:tenant_id, :email, :name, :role)
RETURNING *;

-- name: get_user^
SELECT * FROM users WHERE tenant_id = :tenant_id AND user_id = :user_id;

-- name: list_users
SELECT * FROM users
WHERE tenant_id = :tenant_id AND user_id > :after::uuid
ORDER BY user_id
LIMIT :limit;

-- name: update_user^
-- What is NULL stays. No row: the version is not the present one, and nothing changed.
UPDATE users
SET name = coalesce(:name, name), role = coalesce(:role, role), is_active = coalesce(:is_active, is_active)
WHERE tenant_id = :tenant_id AND user_id = :user_id AND version = :version
RETURNING *

-- name: lock_admins!
-- Whoever may take an admin or an admin's key away takes this first: two at once follow each other.
SELECT pg_advisory_xact_lock(hashtextextended('admins ' || :tenant_id::uuid, 0));

-- name: keeps_an_admin$
-- Whether an active admin holds a key that neither is revoked nor expires some day.
SELECT EXISTS (
    SELECT FROM users AS u
    JOIN api_keys AS k ON k.tenant_id = u.tenant_id AND k.user_id = u.user_id
    WHERE u.tenant_id = :tenant_id AND u.role = 'admin' AND u.is_active
      AND k.revoked_at IS NULL AND k.expires_at IS NULL
);

-- name: get_user_and_tenant^
SELECT u.user_id, u.name, u.email, t.tenant_id, t.name AS tenant_name
FROM users AS u
JOIN tenants AS t ON t.tenant_id = u.tenant_id
WHERE u.tenant_id = :tenant_id AND u.user_id = :user_id;
