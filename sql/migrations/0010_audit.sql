-- migrate:up
-- Why: every change that people and jobs make stands in a log that nobody can alter unseen.

CREATE TABLE audit_log (
    tenant_id uuid NOT NULL,
    entry_id uuid NOT NULL DEFAULT uuidv7(),
    at timestamptz GENERATED ALWAYS AS (uuid_extract_timestamp(entry_id)) VIRTUAL,
    table_name text NOT NULL,
    record_id text,
    operation text NOT NULL CHECK (operation IN ('INSERT', 'UPDATE', 'DELETE')),
    row_count bigint NOT NULL CHECK (row_count > 0),
    old_values jsonb,
    new_values jsonb,
    user_id uuid,
    key_id uuid,
    request_id text,
    address text,
    job text,
    database_role text NOT NULL,
    position bigint,
    hash bytea,
    PRIMARY KEY (tenant_id, entry_id),
    CHECK ((position IS NULL) = (hash IS NULL))
) PARTITION BY RANGE (entry_id);
COMMENT ON TABLE audit_log IS
    'Written by write_audit() alone, chained by chain_audit() alone. No foreign keys: it outlives what it speaks of.';
COMMENT ON COLUMN audit_log.entry_id IS 'A uuidv7: it orders the log, tells the time and the month''s partition.';
COMMENT ON COLUMN audit_log.record_id IS 'The row''s key without the tenant, its parts separated by spaces; NULL for a batch.';
COMMENT ON COLUMN audit_log.row_count IS 'More than 1: rows that one INSERT brought; new_values has the first and last id.';
COMMENT ON COLUMN audit_log.old_values IS 'Of the changed columns alone; NULL for an INSERT.';
COMMENT ON COLUMN audit_log.new_values IS 'Of the changed columns alone; NULL for a DELETE.';
COMMENT ON COLUMN audit_log.job IS 'Kind and id of the batch job that made the change.';
COMMENT ON COLUMN audit_log.database_role IS 'Who was logged in: tells a hand in the tables from the application.';
COMMENT ON COLUMN audit_log.position IS 'Place in the chain of the tenant and month, given after commit; NULL until then.';
CREATE INDEX audit_log_record ON audit_log (tenant_id, table_name, record_id, entry_id);
CREATE INDEX audit_log_user ON audit_log (tenant_id, user_id, entry_id) WHERE user_id IS NOT NULL;
CREATE INDEX audit_log_unchained ON audit_log (tenant_id, entry_id) WHERE position IS NULL;
COMMENT ON INDEX audit_log_unchained IS 'What chain_audit() looks through; as small as the work at hand.';
SELECT protect_tenant_table('audit_log');
GRANT SELECT ON audit_log TO guthi_app;

CREATE TABLE audit_log_default PARTITION OF audit_log DEFAULT;
COMMENT ON TABLE audit_log_default IS 'Catches what make_partitions missed; doctor tells when a row is here.';
SELECT protect_tenant_table('audit_log_default');

CREATE TABLE audit_heads (
    tenant_id uuid NOT NULL,
    month date NOT NULL,
    position bigint NOT NULL,
    hash bytea NOT NULL,
    PRIMARY KEY (tenant_id, month)
);
COMMENT ON TABLE audit_heads IS 'Where each chain ends, so that a missing end shows. Written by chain_audit() alone.';
SELECT protect_tenant_table('audit_heads');
GRANT SELECT ON audit_heads TO guthi_app;

CREATE FUNCTION uuidv7_month(id uuid) RETURNS date LANGUAGE sql IMMUTABLE AS $$
    SELECT date_trunc('month', uuid_extract_timestamp(id) AT TIME ZONE 'UTC')::date
$$;
COMMENT ON FUNCTION uuidv7_month IS 'The month, UTC, in which a uuidv7 was made.';

-- One mechanism for every table that is partitioned by a uuidv7. A worker that is older calls it once a day at most,
-- and partitions are there two months ahead.
-- squawk-ignore ban-drop-function
DROP FUNCTION make_contribution_partitions(integer);

CREATE FUNCTION make_partitions(months_ahead integer) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    this_month timestamp := date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC');
    month timestamp;
    parent text;
    key text;
    kept text;
    name text;
    first_id uuid;
    next_id uuid;
BEGIN
    IF months_ahead NOT BETWEEN 0 AND 24 THEN
        RAISE EXCEPTION 'months_ahead must be between 0 and 24, not %', months_ahead;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('make_partitions', 0));
    FOR parent, key, month IN
        SELECT t.*, this_month + make_interval(months => ahead)
        FROM (VALUES ('contributions', 'cycle_id'), ('audit_log', 'entry_id')) AS t, generate_series(0, months_ahead) AS ahead
    LOOP
        name := parent || '_' || to_char(month, 'YYYY_MM');
        CONTINUE WHEN to_regclass(name) IS NOT NULL;
        first_id := uuidv7_floor(month AT TIME ZONE 'UTC');
        next_id := uuidv7_floor((month + interval '1 month') AT TIME ZONE 'UTC');
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', name, parent);
        PERFORM protect_tenant_table(name::regclass);
        SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO kept FROM pg_attribute
        WHERE attrelid = parent::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '';
        -- What came before its partition moves into it; nothing more may come meanwhile.
        EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', parent || '_default');
        EXECUTE format(
            'WITH moved AS (DELETE FROM %1$I WHERE %2$I >= %3$L AND %2$I < %4$L RETURNING *) '
            'INSERT INTO %5$I (%6$s) SELECT %6$s FROM moved',
            parent || '_default', key, first_id, next_id, name, kept
        );
        -- ATTACH lets the other partitions be written to, which CREATE TABLE … PARTITION OF does not.
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, name, first_id, next_id);
        RETURN NEXT name;
    END LOOP;
END $$;
COMMENT ON FUNCTION make_partitions IS
    'Makes the partitions of this month and the next ones, UTC, and moves what the default partitions caught of them;'
    ' returns the names of those it made. Safe to repeat.';
REVOKE ALL ON FUNCTION make_partitions FROM public;
GRANT EXECUTE ON FUNCTION make_partitions TO guthi_app;
SELECT make_partitions(2);

CREATE FUNCTION audit_hides(column_name text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    -- The one list: by words, so that a column that a later migration brings is hidden without being named here.
    SELECT column_name ~ '(secret|password|passphrase|token|hash|sha256|salt|private)'
        OR column_name IN ('tenant_id', 'updated_at') -- the entry has its own
$$;
COMMENT ON FUNCTION audit_hides IS 'Columns whose values the audit log never holds: secrets, their hashes, and what says nothing.';

CREATE FUNCTION audit_record_id(key_columns text[], record jsonb) RETURNS text LANGUAGE sql STABLE AS $$
    -- Trigger arguments count from 0. One expression, so that PostgreSQL inlines it.
    SELECT concat_ws(' ', record ->> key_columns[0], record ->> key_columns[1], record ->> key_columns[2])
$$;
COMMENT ON FUNCTION audit_record_id IS 'A row''s key without the tenant: at most three columns.';

CREATE FUNCTION append_audit(
    table_name text, key_columns text[], operation text, before jsonb, after jsonb, row_count bigint DEFAULT 1
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    actor jsonb := coalesce(nullif(current_setting('app.actor', true), ''), '{}');
    tenant uuid := coalesce(after, before) ->> 'tenant_id';
    old_values jsonb;
    new_values jsonb;
BEGIN
    SELECT coalesce(jsonb_object_agg(c.name, before -> c.name), '{}'), coalesce(jsonb_object_agg(c.name, after -> c.name), '{}')
    INTO old_values, new_values
    FROM jsonb_object_keys(coalesce(after, before)) AS c (name)
    WHERE NOT audit_hides(c.name) AND coalesce(before -> c.name, 'null') <> coalesce(after -> c.name, 'null');

    INSERT INTO audit_log (
        tenant_id, table_name, record_id, operation, row_count, old_values, new_values,
        user_id, key_id, request_id, address, job, database_role
    ) VALUES (
        tenant, table_name, CASE row_count WHEN 1 THEN audit_record_id(key_columns, coalesce(after, before)) END,
        operation, row_count,
        CASE WHEN before IS NOT NULL THEN old_values END, CASE WHEN after IS NOT NULL THEN new_values END,
        (actor ->> 'user')::uuid, (actor ->> 'key')::uuid, actor ->> 'request', actor ->> 'address',
        (
            SELECT j.kind || ' ' || j.job_id FROM batch_jobs AS j
            WHERE j.tenant_id = tenant AND j.job_id = (actor ->> 'job')::uuid
        ),
        session_user
    );
END $$;
COMMENT ON FUNCTION append_audit IS 'One entry: what changed, and who is acting as the transaction''s app.actor says.';
REVOKE ALL ON FUNCTION append_audit FROM public;

CREATE FUNCTION write_audit() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    batch record;
BEGIN
    -- Deletions first: an expression that names new_rows cannot even be planned for them.
    IF TG_OP = 'DELETE' THEN
        PERFORM append_audit(TG_TABLE_NAME, TG_ARGV, TG_OP, to_jsonb(r), NULL) FROM old_rows AS r;
    ELSIF NOT EXISTS (SELECT FROM new_rows OFFSET 1) THEN
        IF TG_OP = 'INSERT' THEN
            PERFORM append_audit(TG_TABLE_NAME, TG_ARGV, TG_OP, NULL, to_jsonb(r)) FROM new_rows AS r;
        ELSE -- a changed key shows in one entry
            PERFORM append_audit(TG_TABLE_NAME, TG_ARGV, TG_OP, to_jsonb(o), to_jsonb(n))
            FROM old_rows AS o, new_rows AS n WHERE to_jsonb(o) <> to_jsonb(n);
        END IF;
    ELSIF TG_OP = 'UPDATE' THEN
        PERFORM append_audit(TG_TABLE_NAME, TG_ARGV, TG_OP, o.record, n.record)
        FROM (SELECT to_jsonb(r) AS record FROM old_rows AS r) AS o
        FULL JOIN (SELECT to_jsonb(r) AS record FROM new_rows AS r) AS n
            ON audit_record_id(TG_ARGV, o.record) = audit_record_id(TG_ARGV, n.record)
            AND o.record -> 'tenant_id' = n.record -> 'tenant_id'
        WHERE o.record IS DISTINCT FROM n.record;
    ELSE
        FOR batch IN EXECUTE format(
            'SELECT tenant_id, min(id) AS first, max(id) AS last, count(*) AS row_count '
            'FROM (SELECT tenant_id, concat_ws('' '', %s) AS id FROM new_rows) AS r GROUP BY tenant_id',
            (SELECT string_agg(quote_ident(k), ', ') FROM unnest(TG_ARGV) AS k)
        ) LOOP
            PERFORM append_audit(TG_TABLE_NAME, TG_ARGV, TG_OP, NULL, to_jsonb(batch) - 'row_count', batch.row_count);
        END LOOP;
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION write_audit IS
    'The one trigger of the audit log, a statement: an entry for each row that was changed or deleted, since its old'
    ' values are nowhere else; rows that one INSERT brings share an entry.';
-- Or a role could attach it to a table of its own, and write what it likes.
REVOKE ALL ON FUNCTION write_audit FROM public;

CREATE FUNCTION audit_table(audited regclass, only_by_hand boolean DEFAULT false) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    key_columns text;
    kind record;
BEGIN
    SELECT string_agg(quote_literal(a.attname), ', ' ORDER BY array_position(i.indkey::smallint[], a.attnum)) INTO key_columns
    FROM pg_index AS i
    JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = any(i.indkey::smallint[])
    WHERE i.indrelid = audited AND i.indisprimary AND (a.attname <> 'tenant_id' OR i.indnkeyatts = 1)
        AND array_position(i.indkey::smallint[], a.attnum) < i.indnkeyatts;
    FOR kind IN
        SELECT * FROM (VALUES
            ('INSERT', 'NEW TABLE AS new_rows'),
            ('UPDATE', 'OLD TABLE AS old_rows NEW TABLE AS new_rows'),
            ('DELETE', 'OLD TABLE AS old_rows')
        ) AS t (operation, transition)
    LOOP
        EXECUTE format(
            'CREATE TRIGGER %I AFTER %s ON %s REFERENCING %s FOR EACH STATEMENT %s EXECUTE FUNCTION write_audit(%s)',
            'audit_' || lower(kind.operation), kind.operation, audited, kind.transition,
            CASE WHEN only_by_hand THEN $when$WHEN (coalesce(current_setting('app.actor', true), '') = '')$when$ END,
            key_columns
        );
    END LOOP;
END $$;
COMMENT ON FUNCTION audit_table IS
    'From now on changes of this table are in the audit log; only_by_hand: but for those of requests and jobs.';

SELECT audit_table('tenants');
SELECT audit_table('users');
SELECT audit_table('api_keys');
SELECT audit_table('tiers');
SELECT audit_table('agents');
SELECT audit_table('members');
SELECT audit_table('contribution_cycles');
SELECT audit_table('batch_jobs');
-- What requests and jobs change here follows from an entry above: a number taken, a membership of a member changed.
SELECT audit_table('counters', only_by_hand => true);
SELECT audit_table('tier_memberships', only_by_hand => true);
-- Not: contributions, notifications, shards, staged rows and job logs (a job makes them, by the batch, and invariants
-- hold them against its books), events (a history themselves), stored answers (passing).

CREATE FUNCTION audit_hash(previous bytea, place bigint, entry audit_log) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
    -- An array and not the row: a column that comes later must not change the hashes of today.
    SELECT sha256(previous || convert_to(jsonb_build_array(
        place, entry.tenant_id, entry.entry_id, entry.table_name, entry.record_id, entry.operation, entry.row_count,
        entry.old_values, entry.new_values, entry.user_id, entry.key_id, entry.request_id, entry.address, entry.job,
        entry.database_role
    )::text, 'UTF8'))
$$;
COMMENT ON FUNCTION audit_hash IS 'An entry''s link in its chain. Never change it: what it made could not be verified.';

CREATE FUNCTION chain_audit(most integer) RETURNS SETOF audit_heads
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    head audit_heads;
    entry audit_log;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('chain_audit', 0));
    FOR head IN
        SELECT u.tenant_id, u.month, coalesce(h.position, 0), coalesce(h.hash, '')
        FROM (SELECT DISTINCT tenant_id, uuidv7_month(entry_id) AS month FROM audit_log WHERE position IS NULL) AS u
        LEFT JOIN audit_heads AS h ON h.tenant_id = u.tenant_id AND h.month = u.month
        ORDER BY u.tenant_id, u.month
    LOOP
        -- A transaction that commits late finds its place behind those that did not wait for it.
        FOR entry IN
            SELECT * FROM audit_log AS a
            WHERE a.tenant_id = head.tenant_id AND a.position IS NULL AND uuidv7_month(a.entry_id) = head.month
            ORDER BY a.entry_id LIMIT most
        LOOP
            head.position := head.position + 1;
            head.hash := audit_hash(head.hash, head.position, entry);
            UPDATE audit_log AS a SET position = head.position, hash = head.hash
            WHERE a.tenant_id = entry.tenant_id AND a.entry_id = entry.entry_id;
        END LOOP;
        INSERT INTO audit_heads SELECT head.*
        ON CONFLICT (tenant_id, month) DO UPDATE SET position = excluded.position, hash = excluded.hash;
        RETURN NEXT head;
    END LOOP;
END $$;
COMMENT ON FUNCTION chain_audit IS
    'Numbers and chains what is committed, at most so many entries of each tenant and month; returns the chains'' ends.'
    ' Writers never wait for it.';
REVOKE ALL ON FUNCTION chain_audit FROM public;
GRANT EXECUTE ON FUNCTION chain_audit TO guthi_app;

-- migrate:down
