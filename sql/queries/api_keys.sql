-- name: authenticate_key^
-- Who holds this key. No row: it opens nothing.
SELECT tenant_id, user_id, role, is_active FROM authenticate_key(:key_id, :secret);

-- name: is_expired_key$
-- Whether a key that opens nothing would have, earlier.
SELECT is_expired_key(:key_id, :secret);

-- name: insert_api_key^
INSERT INTO api_keys (tenant_id, user_id, secret_sha256, expires_at)
VALUES (:tenant_id, :user_id, sha256(:secret), :expires_at)
RETURNING tenant_id, key_id, user_id, created_at, expires_at, revoked_at, replaced_by;

-- name: lock_api_key^
-- NO KEY, and never its hash. `is_live`: it still opens.
SELECT
    key_id, user_id, created_at, expires_at, revoked_at, replaced_by,
    revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp()) AS is_live
FROM api_keys
WHERE tenant_id = :tenant_id AND key_id = :key_id
FOR NO KEY UPDATE;

-- name: list_api_keys
SELECT key_id, user_id, created_at, expires_at, revoked_at, replaced_by FROM api_keys
WHERE tenant_id = :tenant_id AND key_id > :after::uuid
ORDER BY key_id
LIMIT :limit;

-- name: replace_api_key!
-- It opens for a grace period more, unless it ends sooner anyway.
UPDATE api_keys
SET replaced_by = :new_key_id, expires_at = least(expires_at, clock_timestamp() + :grace::interval)
WHERE tenant_id = :tenant_id AND key_id = :key_id;

-- name: revoke_api_key!
-- A key that was revoked before stays revoked since then.
UPDATE api_keys SET revoked_at = coalesce(revoked_at, clock_timestamp())
WHERE tenant_id = :tenant_id AND key_id = :key_id;

-- name: live_key_role$
-- The role that a key gives now, and a session of it where one is named. NULL: it no longer opens, the session is
-- over, or the user was deactivated.
SELECT u.role FROM api_keys AS k
JOIN users AS u ON u.tenant_id = k.tenant_id AND u.user_id = k.user_id
WHERE k.tenant_id = :tenant_id AND k.key_id = :key_id AND u.is_active
  AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp())
  AND (
      :session_id::uuid IS NULL OR EXISTS (
          SELECT FROM sessions AS s
          WHERE s.tenant_id = k.tenant_id AND s.session_id = :session_id AND s.expires_at > clock_timestamp()
      )
  );
