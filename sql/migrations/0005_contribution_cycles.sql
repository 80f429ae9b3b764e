-- migrate:up
-- Why: the cycle, one contribution for each member who owes one, and the word to the agents.

CREATE TABLE contribution_cycles (
    tenant_id uuid NOT NULL REFERENCES tenants,
    cycle_id uuid NOT NULL DEFAULT uuidv7(),
    cycle_code text NOT NULL,
    claim_id uuid,
    tier_id uuid NOT NULL,
    deceased_member_id uuid NOT NULL,
    cycle_status text NOT NULL DEFAULT 'Initializing'
    CHECK (cycle_status IN ('Initializing', 'Active', 'Completed', 'Failed', 'Cancelled')),
    contribution_amount numeric(14, 2) NOT NULL CHECK (contribution_amount > 0),
    benefit_amount numeric(14, 2) NOT NULL CHECK (benefit_amount > 0),
    collected_amount numeric(24, 2) NOT NULL DEFAULT 0 CHECK (collected_amount >= 0),
    as_of timestamptz NOT NULL,
    start_date date NOT NULL,
    deadline date NOT NULL CHECK (deadline > start_date),
    total_members bigint,
    paid_members bigint NOT NULL DEFAULT 0,
    failed_members bigint NOT NULL DEFAULT 0,
    created_by uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    version integer NOT NULL DEFAULT 1,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, cycle_id),
    UNIQUE (tenant_id, cycle_code),
    CHECK (paid_members >= 0 AND failed_members >= 0 AND paid_members + failed_members <= total_members),
    FOREIGN KEY (tenant_id, tier_id) REFERENCES tiers,
    FOREIGN KEY (tenant_id, deceased_member_id) REFERENCES members,
    FOREIGN KEY (tenant_id, created_by) REFERENCES users
);
COMMENT ON COLUMN contribution_cycles.cycle_id IS 'A uuidv7, so that a range of ids is a stretch of time: contributions are partitioned by it.';
COMMENT ON COLUMN contribution_cycles.claim_id IS 'The claim that the benefit answers, in whatever system keeps claims.';
COMMENT ON COLUMN contribution_cycles.as_of IS 'The instant that decides who owes: read under the tier''s exclusive advisory lock.';
COMMENT ON COLUMN contribution_cycles.total_members IS 'Counted from the rows when the cycle turned Active; NULL before.';
COMMENT ON COLUMN contribution_cycles.failed_members IS 'Members whose contribution was given up as uncollectable.';
CREATE TRIGGER bump_version BEFORE UPDATE ON contribution_cycles FOR EACH ROW EXECUTE FUNCTION bump_version();
SELECT protect_tenant_table('contribution_cycles');
GRANT SELECT, INSERT, UPDATE ON contribution_cycles TO guthi_app;

CREATE VIEW cycles_with_jobs WITH (security_invoker = true) AS
SELECT
    c.*, j.job_id, j.state AS job_state, j.total AS job_total, j.error AS job_error,
    j.started_at AS job_started_at, j.completed_at AS job_completed_at, s.processed
FROM contribution_cycles AS c
LEFT JOIN batch_jobs AS j
    ON j.tenant_id = c.tenant_id AND j.subject_id = c.cycle_id AND j.kind = 'create_contributions'
LEFT JOIN LATERAL (
    SELECT sum(processed)::bigint AS processed FROM batch_job_shards
    WHERE tenant_id = j.tenant_id AND job_id = j.job_id
) AS s ON true;
COMMENT ON VIEW cycles_with_jobs IS 'A cycle with the job that makes its contributions, and the keys that job has walked.';
GRANT SELECT ON cycles_with_jobs TO guthi_app;

CREATE TABLE contributions (
    tenant_id uuid NOT NULL,
    cycle_id uuid NOT NULL,
    member_id uuid NOT NULL,
    contribution_amount numeric(14, 2) NOT NULL CHECK (contribution_amount > 0),
    contribution_status text NOT NULL DEFAULT 'Pending' CHECK (contribution_status IN ('Pending', 'Paid', 'Failed')),
    due_date date NOT NULL,
    contribution_id uuid GENERATED ALWAYS AS (
        encode(
            set_byte(
                set_byte(
                    decode(md5(uuid_send(cycle_id) || uuid_send(member_id)), 'hex'),
                    6, get_byte(decode(md5(uuid_send(cycle_id) || uuid_send(member_id)), 'hex'), 6) & 15 | 48
                ),
                8, get_byte(decode(md5(uuid_send(cycle_id) || uuid_send(member_id)), 'hex'), 8) & 63 | 128
            ), 'hex'
        )::uuid
    ) VIRTUAL,
    PRIMARY KEY (tenant_id, cycle_id, member_id)
) PARTITION BY RANGE (cycle_id);
COMMENT ON TABLE contributions IS
    'One for each member and cycle, by its key. No foreign keys: each would cost a trigger a row, twice the time.';
COMMENT ON COLUMN contributions.contribution_id IS
    'RFC 9562 version 3: the member''s 16 bytes in the cycle''s namespace. Never stored, the same on every retry.';
SELECT protect_tenant_table('contributions');
GRANT SELECT, INSERT, UPDATE, DELETE ON contributions TO guthi_app;

CREATE TABLE contributions_default PARTITION OF contributions DEFAULT;
COMMENT ON TABLE contributions_default IS 'Catches what make_partitions missed; doctor tells when a row is here.';
SELECT protect_tenant_table('contributions_default');

CREATE FUNCTION uuidv7_floor(at timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT rpad(lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0'), 32, '0')::uuid
$$;
COMMENT ON FUNCTION uuidv7_floor IS 'Below every uuidv7 made at that time or later.';

CREATE FUNCTION make_contribution_partitions(months_ahead integer) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    this_month timestamp := date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC');
    month timestamp;
    name text;
    first_id uuid;
    next_id uuid;
BEGIN
    IF months_ahead NOT BETWEEN 0 AND 24 THEN
        RAISE EXCEPTION 'months_ahead must be between 0 and 24, not %', months_ahead;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('make_contribution_partitions', 0));
    FOR ahead IN 0..months_ahead LOOP
        month := this_month + make_interval(months => ahead);
        name := 'contributions_' || to_char(month, 'YYYY_MM');
        CONTINUE WHEN to_regclass(name) IS NOT NULL;
        first_id := uuidv7_floor(month AT TIME ZONE 'UTC');
        next_id := uuidv7_floor((month + interval '1 month') AT TIME ZONE 'UTC');
        EXECUTE format('CREATE TABLE %I (LIKE contributions INCLUDING ALL)', name);
        PERFORM protect_tenant_table(name::regclass);
        -- What came before its partition moves into it; nothing more may come meanwhile.
        LOCK TABLE contributions_default IN ACCESS EXCLUSIVE MODE;
        EXECUTE format(
            'WITH moved AS (DELETE FROM contributions_default WHERE cycle_id >= %L AND cycle_id < %L RETURNING *) '
            'INSERT INTO %I (tenant_id, cycle_id, member_id, contribution_amount, contribution_status, due_date) '
            'SELECT tenant_id, cycle_id, member_id, contribution_amount, contribution_status, due_date FROM moved',
            first_id, next_id, name
        );
        -- ATTACH lets the other partitions be written to, which CREATE TABLE … PARTITION OF does not.
        EXECUTE format(
            'ALTER TABLE contributions ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, first_id, next_id
        );
        RETURN NEXT name;
    END LOOP;
END $$;
COMMENT ON FUNCTION make_contribution_partitions IS
    'Makes the partitions of this month and the next ones, UTC, and moves what the default partition caught of them;'
    ' returns the names of those it made. Safe to repeat.';
REVOKE ALL ON FUNCTION make_contribution_partitions FROM public;
GRANT EXECUTE ON FUNCTION make_contribution_partitions TO guthi_app;
SELECT make_contribution_partitions(2);

CREATE TABLE notifications (
    tenant_id uuid NOT NULL REFERENCES tenants,
    notification_id uuid NOT NULL DEFAULT uuidv7(),
    cycle_id uuid NOT NULL,
    agent_id uuid NOT NULL,
    member_count bigint NOT NULL CHECK (member_count > 0),
    total_amount numeric(24, 2) NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, notification_id),
    UNIQUE (tenant_id, cycle_id, agent_id),
    FOREIGN KEY (tenant_id, cycle_id) REFERENCES contribution_cycles,
    FOREIGN KEY (tenant_id, agent_id) REFERENCES agents
);
COMMENT ON TABLE notifications IS 'Tells an agent of a new cycle: how many of their members owe, and how much together.';
SELECT protect_tenant_table('notifications');
GRANT SELECT, INSERT ON notifications TO guthi_app;

-- migrate:down
