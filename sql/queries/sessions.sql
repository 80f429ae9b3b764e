-- name: insert_session$
-- The id of a new session of a key.
INSERT INTO sessions (tenant_id, key_id, expires_at)
VALUES (:tenant_id, :key_id, clock_timestamp() + :lasts::interval)
RETURNING session_id;

-- name: authenticate_session^
-- Who holds this session. No row: it is over.
SELECT tenant_id, user_id, role, is_active, key_id FROM authenticate_session(:tenant_id, :session_id);

-- name: delete_session!
-- Again is fine.
DELETE FROM sessions WHERE tenant_id = :tenant_id AND session_id = :session_id;

-- name: purge_sessions!
DELETE FROM sessions WHERE tenant_id = :tenant_id AND expires_at < clock_timestamp();
