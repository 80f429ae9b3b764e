-- name: append_event!
-- Same transaction as the change. A version that is taken already is a defect, and the key says so.
INSERT INTO events (
    tenant_id, aggregate_type, aggregate_id, version, event_type, payload_version, payload, created_by
)
VALUES (
    :tenant_id, :aggregate_type, :aggregate_id, :version, :event_type, :payload_version, :payload::text::jsonb,
    :created_by
);

-- name: read_feed
-- In the order of the feed, which has no gaps: what is read after the last position can only be newer.
SELECT * FROM events
WHERE tenant_id = :tenant_id AND position > :after::bigint
ORDER BY position
LIMIT :limit;

-- name: last_position$
-- The newest place in the feed; 0: there is none yet.
SELECT coalesce(max(position), 0) FROM events WHERE tenant_id = :tenant_id AND position IS NOT NULL;

-- name: list_aggregate_events
-- In the order of the versions. Those of the last seconds have no position yet.
SELECT * FROM events WHERE tenant_id = :tenant_id AND aggregate_id = :aggregate_id ORDER BY version;

-- name: read_notices
-- How cycles ended, in the order of the feed; `created_by`: only those that this user started.
SELECT
    e.position, e.event_type, e.aggregate_id AS cycle_id, e.created_at AS at, e.payload ->> 'reason' AS reason,
    c.cycle_code, c.total_members, c.created_by AS user_id
FROM events AS e
JOIN contribution_cycles AS c ON c.tenant_id = e.tenant_id AND c.cycle_id = e.aggregate_id
WHERE e.tenant_id = :tenant_id AND e.position > :after::bigint
  AND e.event_type IN ('ContributionCycleActivated', 'ContributionCycleFailed', 'ContributionCycleCancelled')
  AND (:created_by::uuid IS NULL OR c.created_by = :created_by)
ORDER BY e.position
LIMIT :limit;

-- name: unplaced_events
SELECT tenant_id, oldest_seconds FROM unplaced_events();

-- name: place_events$
SELECT place_events(:tenant_id, :most);

-- name: replayable
-- Every aggregate with its events in order: [version, type, payload version, payload]. One snapshot.
SELECT
    coalesce(a.aggregate_type, e.aggregate_type) AS aggregate_type,
    coalesce(a.aggregate_id, e.aggregate_id) AS aggregate_id,
    a.version, a.state::text AS state, e.events::text AS events
FROM (SELECT aggregate_type, aggregate_id, version, state FROM aggregates WHERE tenant_id = :tenant_id) AS a
FULL JOIN (
    SELECT
        aggregate_type, aggregate_id,
        json_agg(json_build_array(version, event_type, payload_version, payload) ORDER BY version) AS events
    FROM events WHERE tenant_id = :tenant_id
    GROUP BY aggregate_type, aggregate_id
) AS e ON e.aggregate_id = a.aggregate_id AND e.aggregate_type = a.aggregate_type;
