-- migrate:up
-- Why: who belongs to which tier, and since when: the set that owes is read from this history.

CREATE TABLE tiers (
    tenant_id uuid NOT NULL REFERENCES tenants,
    tier_id uuid NOT NULL DEFAULT uuidv7(),
    code text NOT NULL,
    name text NOT NULL,
    contribution_amount numeric(14, 2) NOT NULL CHECK (contribution_amount > 0),
    benefit_amount numeric(14, 2) NOT NULL CHECK (benefit_amount > 0),
    version integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, tier_id),
    UNIQUE (tenant_id, code)
);
COMMENT ON COLUMN tiers.contribution_amount IS 'What each member owes for a death in the tier, unless a cycle says otherwise.';
COMMENT ON COLUMN tiers.benefit_amount IS 'What the family of the deceased receives, unless a cycle says otherwise.';
CREATE TRIGGER bump_version BEFORE UPDATE ON tiers FOR EACH ROW EXECUTE FUNCTION bump_version();
SELECT protect_tenant_table('tiers');
GRANT SELECT, INSERT, UPDATE ON tiers TO guthi_app;

CREATE TABLE agents (
    tenant_id uuid NOT NULL REFERENCES tenants,
    agent_id uuid NOT NULL DEFAULT uuidv7(),
    code text NOT NULL,
    name text NOT NULL,
    email text,
    version integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, agent_id),
    UNIQUE (tenant_id, code)
);
COMMENT ON TABLE agents IS 'Field agents who collect from the members assigned to them.';
CREATE TRIGGER bump_version BEFORE UPDATE ON agents FOR EACH ROW EXECUTE FUNCTION bump_version();
SELECT protect_tenant_table('agents');
GRANT SELECT, INSERT, UPDATE ON agents TO guthi_app;

CREATE TABLE members (
    tenant_id uuid NOT NULL,
    member_id uuid NOT NULL DEFAULT uuidv7(),
    member_number text NOT NULL,
    full_name text NOT NULL,
    gender text NOT NULL CHECK (gender IN ('F', 'M', 'O')),
    status text NOT NULL CHECK (status IN ('Active', 'Inactive', 'Deceased')),
    tier_id uuid NOT NULL,
    agent_id uuid,
    phone text,
    email text,
    joined_on date NOT NULL,
    version integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, member_id),
    UNIQUE (tenant_id, member_number),
    FOREIGN KEY (tenant_id, tier_id) REFERENCES tiers,
    FOREIGN KEY (tenant_id, agent_id) REFERENCES agents
);
COMMENT ON TABLE members IS
    'Never deleted: contributions name them without a foreign key. The tier''s foreign key vouches for the tenant.';
COMMENT ON COLUMN members.tier_id IS 'The present tier (the last one of a deceased member); who owed when is in tier_memberships.';
CREATE INDEX members_agent ON members (tenant_id, agent_id, member_id);
COMMENT ON INDEX members_agent IS 'notify_agents_new_cycle sums a cycle agent by agent.';
CREATE TRIGGER bump_version BEFORE UPDATE ON members FOR EACH ROW EXECUTE FUNCTION bump_version();
SELECT protect_tenant_table('members');
GRANT SELECT, INSERT, UPDATE ON members TO guthi_app;

CREATE TABLE tier_memberships (
    tenant_id uuid NOT NULL,
    tier_id uuid NOT NULL,
    member_id uuid NOT NULL,
    valid_from timestamptz NOT NULL,
    valid_to timestamptz,
    CHECK (valid_to > valid_from),
    PRIMARY KEY (tenant_id, tier_id, member_id, valid_from) INCLUDE (valid_to),
    FOREIGN KEY (tenant_id, tier_id) REFERENCES tiers,
    FOREIGN KEY (tenant_id, member_id) REFERENCES members
);
COMMENT ON TABLE tier_memberships IS
    'The times at which a member was active in a tier, and so owed: open while valid_to is NULL.';
COMMENT ON COLUMN tier_memberships.valid_from IS
    'clock_timestamp() read under the tier''s shared advisory lock, so that no change slips under a cycle''s as_of.';
CREATE UNIQUE INDEX tier_memberships_open ON tier_memberships (tenant_id, member_id) WHERE valid_to IS NULL;
COMMENT ON INDEX tier_memberships_open IS 'A member is active in one tier at a time.';
SELECT protect_tenant_table('tier_memberships');
GRANT SELECT, INSERT, UPDATE ON tier_memberships TO guthi_app;

CREATE FUNCTION lock_tier_shared(tier uuid) RETURNS void LANGUAGE sql AS $$
    SELECT pg_advisory_xact_lock_shared(hashtextextended('tier ' || tier, 0))
$$;
COMMENT ON FUNCTION lock_tier_shared IS 'Held by every change of a membership, before it reads the clock.';

CREATE FUNCTION lock_tier_exclusive(tier uuid) RETURNS void LANGUAGE sql AS $$
    SELECT pg_advisory_xact_lock(hashtextextended('tier ' || tier, 0))
$$;
COMMENT ON FUNCTION lock_tier_exclusive IS 'Held by a cycle''s start, before it reads as_of.';

-- migrate:down
