-- migrate:up
-- Why: rows brought in with their own numbers leave sequences and counters behind; the next new row would then fail.

CREATE FUNCTION counter_usage(tenant uuid) RETURNS TABLE (name text, used bigint, highest bigint)
LANGUAGE sql STABLE AS $$
    SELECT code.parts[1], count(*), max(code.parts[2]::bigint)
    FROM (
        SELECT regexp_match(cycle_code, '^(CC-\d{4})-(\d{1,18})$') AS parts FROM contribution_cycles
        WHERE tenant_id = tenant
        UNION ALL
        SELECT regexp_match(m.member_number, '^(' || t.prefix || '-\d{4}-[FMO])-(\d{1,18})$')
        FROM members AS m JOIN tenants AS t ON t.tenant_id = m.tenant_id
        WHERE m.tenant_id = tenant
    ) AS code
    WHERE code.parts IS NOT NULL
    GROUP BY code.parts[1]
$$;
COMMENT ON FUNCTION counter_usage IS 'The codes that stand, by the counter that gives them: how many, and the highest number.';
GRANT EXECUTE ON FUNCTION counter_usage TO guthi_app;

CREATE FUNCTION owned_sequences() RETURNS TABLE (
    sequence regclass, table_name regclass, column_name text, step bigint, highest bigint
) LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT d.objid::regclass, d.refobjid::regclass, a.attname::text, q.seqincrement, q.seqmax
    FROM pg_depend AS d
    JOIN pg_sequence AS q ON q.seqrelid = d.objid
    JOIN pg_class AS c ON c.oid = d.refobjid AND c.relnamespace = 'public'::regnamespace
    JOIN pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
    WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
$$;
COMMENT ON FUNCTION owned_sequences IS 'Sequences of identity and serial columns.';

CREATE FUNCTION sequence_position(
    s regclass, table_name regclass, column_name text, step bigint, OUT max_used bigint, OUT next_value bigint
) LANGUAGE plpgsql AS $$
BEGIN
    -- The rows first: a row made in between then takes no number that is not yet counted as given.
    EXECUTE format('SELECT max(%I) FROM %s', column_name, table_name) INTO max_used;
    EXECUTE format('SELECT last_value + CASE WHEN is_called THEN $1 ELSE 0 END FROM %s', s) INTO next_value USING step;
END $$;
COMMENT ON FUNCTION sequence_position IS 'The highest number in use, and the next that the sequence will give.';

CREATE FUNCTION check_sequence_health() RETURNS TABLE (
    kind text, name text, table_name text, column_name text, max_used bigint, next_value bigint, status text
) LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    RETURN QUERY
    SELECT
        'sequence', s.sequence::text, s.table_name::text, s.column_name, p.max_used, p.next_value,
        CASE
            WHEN p.next_value <= p.max_used THEN 'behind'
            WHEN p.next_value > s.highest THEN 'exhausted'
            ELSE 'ok'
        END
    FROM owned_sequences() AS s
    CROSS JOIN LATERAL sequence_position(s.sequence, s.table_name, s.column_name, s.step) AS p
    ORDER BY 3, 4;
    RETURN QUERY
    SELECT
        'counter', t.tenant_id || ' ' || n.name, 'counters', 'value', n.highest, n.value + 1,
        CASE WHEN n.value < n.highest THEN 'behind' WHEN n.value - n.skipped <> n.used THEN 'miscounted' ELSE 'ok' END
    FROM tenants AS t
    CROSS JOIN LATERAL (
        SELECT
            coalesce(c.name, u.name) AS name, coalesce(c.value, 0) AS value, coalesce(c.skipped, 0) AS skipped,
            coalesce(u.used, 0) AS used, u.highest
        FROM (SELECT o.name, o.value, o.skipped FROM counters AS o WHERE o.tenant_id = t.tenant_id) AS c
        FULL JOIN counter_usage(t.tenant_id) AS u ON u.name = c.name
    ) AS n
    ORDER BY 2;
END $$;
COMMENT ON FUNCTION check_sequence_health IS
    'Every identity and serial sequence, and every counter of every tenant. status: ok; behind: the next number is taken;'
    ' exhausted: there is none; miscounted: more or fewer codes stand than the counter gave.';
REVOKE ALL ON FUNCTION check_sequence_health FROM public;

CREATE FUNCTION sequence_health_counts() RETURNS TABLE (kind text, status text, found bigint)
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT kind, status, count(*) FROM check_sequence_health() GROUP BY kind, status
$$;
COMMENT ON FUNCTION sequence_health_counts IS 'For the daily check: sums over all tenants, naming none.';
REVOKE ALL ON FUNCTION sequence_health_counts FROM public;
GRANT EXECUTE ON FUNCTION sequence_health_counts TO guthi_app;

CREATE FUNCTION repair_sequence(name text) RETURNS bigint
LANGUAGE plpgsql SET search_path = public, pg_temp SET lock_timeout = '10s' AS $$
DECLARE
    s record;
    p record;
BEGIN
    SELECT * INTO STRICT s FROM owned_sequences() AS o WHERE o.sequence = name::regclass;
    -- Readers go on; writers wait, so that what is read next is the highest there is.
    EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', s.table_name);
    p := sequence_position(s.sequence, s.table_name, s.column_name, s.step);
    IF p.next_value > p.max_used IS NOT FALSE THEN
        RETURN p.next_value;
    END IF;
    PERFORM setval(s.sequence, p.max_used);
    RETURN p.max_used + s.step;
END $$;
COMMENT ON FUNCTION repair_sequence IS
    'Moves a sequence past the highest number in use, never back; returns its next one. Holds off the table''s writers'
    ' meanwhile. Safe to repeat.';
REVOKE ALL ON FUNCTION repair_sequence FROM public;

-- migrate:down
