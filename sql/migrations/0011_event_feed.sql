-- migrate:up
-- Why: every aggregate can be rebuilt from its events, and others can follow them in one order without missing any.

ALTER TABLE events ADD COLUMN payload_version integer NOT NULL DEFAULT 1;
COMMENT ON COLUMN events.payload_version IS 'Of the payload''s shape, by event type: domain/events.py reads the older ones.';
COMMENT ON COLUMN events.payload IS 'What the change set: the payloads of an aggregate, merged in order, are its row.';

-- The row of an aggregate vouches for its tenant; checking it again would cost a third of an import's events.
-- squawk-ignore ban-drop-constraint
ALTER TABLE events DROP CONSTRAINT events_tenant_id_fkey;

-- squawk-ignore require-concurrent-index-creation
CREATE UNIQUE INDEX events_position ON events (tenant_id, position) WHERE position IS NOT NULL;
COMMENT ON INDEX events_position IS 'The feed.';
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX events_unplaced ON events (tenant_id, event_id) WHERE position IS NULL;
COMMENT ON INDEX events_unplaced IS 'What the relay has yet to place: as small as the last seconds'' work.';

CREATE FUNCTION event_state(row_as_json jsonb, key_column text) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_object_agg(
        lower(left(c.key, 1)) || substr(replace(initcap(replace(c.key, '_', ' ')), ' ', ''), 2),
        CASE WHEN c.key LIKE '%\_amount' THEN to_jsonb(c.value #>> '{}') ELSE c.value END
    )
    FROM jsonb_each(row_as_json) AS c
    WHERE c.key NOT IN ('tenant_id', 'version', 'created_by', 'created_at', 'updated_at', key_column)
$$;
COMMENT ON FUNCTION event_state IS 'A row as the payloads of its events speak of it: camelCase, money as decimal strings.';

CREATE VIEW aggregates WITH (security_invoker = true) AS
SELECT
    r.tenant_id, 'user' AS aggregate_type, r.user_id AS aggregate_id, r.version, NULL AS status,
    event_state(to_jsonb(r), 'user_id') AS state
FROM users AS r
UNION ALL
SELECT r.tenant_id, 'tier', r.tier_id, r.version, NULL, event_state(to_jsonb(r), 'tier_id') FROM tiers AS r
UNION ALL
SELECT r.tenant_id, 'agent', r.agent_id, r.version, NULL, event_state(to_jsonb(r), 'agent_id') FROM agents AS r
UNION ALL
SELECT r.tenant_id, 'member', r.member_id, r.version, r.status, event_state(to_jsonb(r), 'member_id') FROM members AS r
UNION ALL
SELECT r.tenant_id, 'contribution_cycle', r.cycle_id, r.version, r.cycle_status, event_state(to_jsonb(r), 'cycle_id')
FROM contribution_cycles AS r;
COMMENT ON VIEW aggregates IS 'Everything whose changes are events, as it stands.';
GRANT SELECT ON aggregates TO guthi_app;

CREATE FUNCTION adopt_rows() RETURNS bigint LANGUAGE sql AS $$
    WITH adopted AS (
        INSERT INTO events (tenant_id, aggregate_type, aggregate_id, version, event_type, payload)
        SELECT
            a.tenant_id, a.aggregate_type, a.aggregate_id, a.version,
            replace(initcap(replace(a.aggregate_type, '_', ' ')), ' ', '') || 'Adopted', a.state
        FROM aggregates AS a
        WHERE NOT EXISTS (SELECT FROM events AS e WHERE e.tenant_id = a.tenant_id AND e.aggregate_id = a.aggregate_id)
        ORDER BY a.tenant_id, a.aggregate_id
        RETURNING 1
    )
    SELECT count(*) FROM adopted
$$;
COMMENT ON FUNCTION adopt_rows IS
    'Gives each row that has no event one with its whole state, at its present version: for rows from before events were'
    ' kept, and for those that came by SQL. Safe to repeat.';
REVOKE ALL ON FUNCTION adopt_rows FROM public;

-- Cycles began their events before all of their columns were in them; those missing have not changed since.
UPDATE events AS e SET payload = event_state(to_jsonb(c), 'cycle_id') || e.payload
FROM contribution_cycles AS c
WHERE c.tenant_id = e.tenant_id AND c.cycle_id = e.aggregate_id AND e.version = 1;
UPDATE events SET payload = payload - 'reason' WHERE payload -> 'reason' = 'null';
SELECT adopt_rows();

CREATE FUNCTION unplaced_events() RETURNS TABLE (tenant_id uuid, oldest_seconds double precision)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT t.tenant_id, greatest(0, extract(epoch FROM clock_timestamp() - e.created_at))::double precision
    FROM tenants AS t
    CROSS JOIN LATERAL (
        SELECT u.created_at FROM events AS u
        WHERE u.tenant_id = t.tenant_id AND u.position IS NULL
        ORDER BY u.event_id LIMIT 1
    ) AS e
$$;
COMMENT ON FUNCTION unplaced_events IS 'For the relay: tenants with committed events that have no position yet.';
REVOKE ALL ON FUNCTION unplaced_events FROM public;
GRANT EXECUTE ON FUNCTION unplaced_events TO guthi_app;

CREATE FUNCTION place_events(tenant uuid, most integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    placed integer;
BEGIN
    -- One relay at a time, and what it reads must be read under the lock: hence a statement of its own.
    IF NOT pg_try_advisory_xact_lock(hashtextextended('event feed ' || tenant, 0)) THEN
        RETURN 0;
    END IF;
    UPDATE events AS e SET position = last.position + fresh.nth
    FROM (
        SELECT u.event_id, row_number() OVER (ORDER BY u.event_id) AS nth
        FROM (
            SELECT event_id FROM events WHERE tenant_id = tenant AND position IS NULL ORDER BY event_id LIMIT most
        ) AS u
    ) AS fresh,
    (SELECT coalesce(max(position), 0) AS position FROM events WHERE tenant_id = tenant AND position IS NOT NULL) AS last
    WHERE e.tenant_id = tenant AND e.event_id = fresh.event_id;
    GET DIAGNOSTICS placed = ROW_COUNT;
    RETURN placed;
END $$;
COMMENT ON FUNCTION place_events IS
    'Gives committed events the tenant''s next positions, at most so many, in the order they were made; returns how many.'
    ' 0: there are none, or another one is at it. The only change an event ever sees.';
REVOKE ALL ON FUNCTION place_events FROM public;
GRANT EXECUTE ON FUNCTION place_events TO guthi_app;

-- migrate:down
