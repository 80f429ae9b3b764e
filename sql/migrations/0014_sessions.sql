-- migrate:up
-- Why: operators use the pages in a browser, which keeps a cookie and must never be given the API key to keep.

CREATE TABLE sessions (
    tenant_id uuid NOT NULL,
    session_id uuid NOT NULL DEFAULT uuidv7(),
    key_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, session_id),
    FOREIGN KEY (tenant_id, key_id) REFERENCES api_keys
);
COMMENT ON TABLE sessions IS
    'Who is signed in to the pages. Signing out deletes the row, so a cookie that was kept opens nothing any more.';
COMMENT ON COLUMN sessions.key_id IS 'The key that was shown at sign-in: when it no longer opens, nor does the session.';
CREATE INDEX sessions_expires_at ON sessions (tenant_id, expires_at);
SELECT protect_tenant_table('sessions');
GRANT SELECT, INSERT, DELETE ON sessions TO guthi_app;

CREATE FUNCTION authenticate_session(tenant uuid, session uuid)
RETURNS TABLE (tenant_id uuid, user_id uuid, role text, is_active boolean, key_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT s.tenant_id, k.user_id, u.role, u.is_active, s.key_id
    FROM sessions AS s
    JOIN api_keys AS k ON k.tenant_id = s.tenant_id AND k.key_id = s.key_id
    JOIN users AS u ON u.tenant_id = k.tenant_id AND u.user_id = k.user_id
    WHERE s.tenant_id = tenant
      AND s.session_id = session
      AND s.expires_at > clock_timestamp()
      AND k.revoked_at IS NULL
      AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp())
$$;
COMMENT ON FUNCTION authenticate_session IS
    'Who holds this session: a row only while it and its key are live. One call a request, before any tenant is set.';
REVOKE ALL ON FUNCTION authenticate_session FROM public;
GRANT EXECUTE ON FUNCTION authenticate_session TO guthi_app;

-- migrate:down
