-- name: try_lock_idempotency_key$
-- False: another transaction works under this key right now.
SELECT pg_try_advisory_xact_lock(hashtextextended('idempotency ' || :tenant_id::uuid || ' ' || :idempotency_key, 0));

-- name: get_idempotency_key^
SELECT request_sha256, status_code, location, answer FROM idempotency_keys
WHERE tenant_id = :tenant_id AND idempotency_key = :idempotency_key;

-- name: insert_idempotency_key!
INSERT INTO idempotency_keys (tenant_id, idempotency_key, request_sha256, status_code, location, answer)
VALUES (:tenant_id, :idempotency_key, :request_sha256, :status_code, :location, :answer);

-- name: purge_idempotency_keys!
DELETE FROM idempotency_keys WHERE tenant_id = :tenant_id AND created_at < clock_timestamp() - :keep::interval;
