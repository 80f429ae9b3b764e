-- migrate:up
-- Why: users and their keys are managed over HTTP: one address one user, and keys that are rotated without a gap.

-- Users and keys are few: their tables are locked for no time that anybody notices.
-- squawk-ignore ban-drop-constraint
ALTER TABLE users DROP CONSTRAINT users_tenant_id_email_key;
-- squawk-ignore require-concurrent-index-creation
CREATE UNIQUE INDEX users_tenant_id_email_key ON users (tenant_id, lower(email));
COMMENT ON INDEX users_tenant_id_email_key IS 'Ram@x.np and ram@x.np are one person.';

ALTER TABLE api_keys ADD COLUMN replaced_by uuid;
COMMENT ON COLUMN api_keys.replaced_by IS 'The key that it was rotated to; expires_at then ends its grace period.';
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX api_keys_user_id ON api_keys (tenant_id, user_id);
COMMENT ON INDEX api_keys_user_id IS 'Does any admin keep a key?';

CREATE FUNCTION is_expired_key(key uuid, secret bytea) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT EXISTS (
        SELECT FROM api_keys AS k
        WHERE k.key_id = key
          AND k.secret_sha256 = sha256(secret)
          AND k.revoked_at IS NULL
          AND k.expires_at <= clock_timestamp()
    )
$$;
COMMENT ON FUNCTION is_expired_key IS
    'Tells the holder of the whole secret why authenticate_key gave no row. Only refused requests ask it.';
REVOKE ALL ON FUNCTION is_expired_key FROM public;
GRANT EXECUTE ON FUNCTION is_expired_key TO guthi_app;

-- migrate:down
