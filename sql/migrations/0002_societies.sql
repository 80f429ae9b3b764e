-- migrate:up
-- Why: who the tenants are, who may act for them, and what every change of theirs leaves behind.

CREATE TABLE tenants (
    tenant_id uuid PRIMARY KEY DEFAULT uuidv7(),
    name text NOT NULL,
    prefix text NOT NULL CHECK (prefix ~ '^[A-Z]{2,5}$'),
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE tenants IS 'One mutual-aid society each.';
COMMENT ON COLUMN tenants.prefix IS 'First part of the society''s member numbers: UML in UML-2025-F-000123.';
SELECT protect_tenant_table('tenants');
GRANT SELECT ON tenants TO guthi_app;

CREATE TABLE users (
    tenant_id uuid NOT NULL REFERENCES tenants,
    user_id uuid NOT NULL DEFAULT uuidv7(),
    email text NOT NULL,
    name text NOT NULL,
    role text NOT NULL CHECK (role IN ('admin', 'operator', 'approver', 'assessor', 'agent', 'viewer')),
    is_active boolean NOT NULL DEFAULT true,
    version integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, user_id),
    UNIQUE (tenant_id, email)
);
COMMENT ON COLUMN users.is_active IS 'Read with the key at every request: false refuses the very next one.';
CREATE TRIGGER bump_version BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION bump_version();
SELECT protect_tenant_table('users');
GRANT SELECT, INSERT, UPDATE ON users TO guthi_app;

CREATE TABLE api_keys (
    tenant_id uuid NOT NULL,
    key_id uuid NOT NULL DEFAULT uuidv7(),
    user_id uuid NOT NULL,
    secret_sha256 bytea NOT NULL,
    expires_at timestamptz,
    revoked_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, key_id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users
);
COMMENT ON COLUMN api_keys.secret_sha256 IS
    'The secret itself is shown once and never kept; it has 256 random bits, so a plain hash is enough.';
CREATE INDEX api_keys_key_id ON api_keys (key_id);
COMMENT ON INDEX api_keys_key_id IS 'A request brings a key before its tenant is known.';
SELECT protect_tenant_table('api_keys');
GRANT SELECT, INSERT, UPDATE ON api_keys TO guthi_app;

CREATE TABLE counters (
    tenant_id uuid NOT NULL REFERENCES tenants,
    name text NOT NULL,
    value bigint NOT NULL DEFAULT 0 CHECK (value >= 0),
    skipped bigint NOT NULL DEFAULT 0 CHECK (skipped >= 0),
    PRIMARY KEY (tenant_id, name)
);
COMMENT ON TABLE counters IS
    'Numbers without gaps: taken by UPDATE in the transaction of the row that carries the number.';
COMMENT ON COLUMN counters.name IS 'What the code begins with, without the last dash: CC-2025, UML-2025-F.';
COMMENT ON COLUMN counters.value IS 'The highest number in use.';
COMMENT ON COLUMN counters.skipped IS
    'Numbers up to value that nobody has, because imported ones jumped over them: value - skipped are in use.';
SELECT protect_tenant_table('counters');
GRANT SELECT, INSERT, UPDATE ON counters TO guthi_app;

CREATE TABLE idempotency_keys (
    tenant_id uuid NOT NULL REFERENCES tenants,
    idempotency_key text NOT NULL,
    request_sha256 bytea NOT NULL,
    status_code integer NOT NULL,
    location text,
    answer text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, idempotency_key)
);
COMMENT ON TABLE idempotency_keys IS
    'Stored answers, committed with what they speak of. A refused request stores nothing: its key stays free.';
COMMENT ON COLUMN idempotency_keys.request_sha256 IS 'Of method, path, query and body: a key belongs to one request.';
CREATE INDEX idempotency_keys_created_at ON idempotency_keys (tenant_id, created_at);
SELECT protect_tenant_table('idempotency_keys');
GRANT SELECT, INSERT, DELETE ON idempotency_keys TO guthi_app;

CREATE TABLE events (
    tenant_id uuid NOT NULL REFERENCES tenants,
    event_id uuid NOT NULL DEFAULT uuidv7(),
    aggregate_type text NOT NULL,
    aggregate_id uuid NOT NULL,
    version integer NOT NULL,
    event_type text NOT NULL,
    payload jsonb NOT NULL,
    position bigint,
    created_by uuid,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, event_id),
    UNIQUE (tenant_id, aggregate_id, version)
);
COMMENT ON TABLE events IS 'Outbox and history: appended in the transaction of the change, never altered.';
COMMENT ON COLUMN events.version IS 'The version that the aggregate''s row has after the change.';
COMMENT ON COLUMN events.position IS
    'Place in the feed, given after commit; NULL until then. One given at insert would let readers skip a late commit.';
COMMENT ON COLUMN events.created_by IS 'The user who caused it; NULL for the system itself.';
SELECT protect_tenant_table('events');
GRANT SELECT, INSERT ON events TO guthi_app;

-- migrate:down
