-- Each query finds what breaks one invariant of one tenant, in one statement and so in one snapshot: it holds
-- at every instant, also while jobs run. Rows: subject (what is broken), detail (how). No rows: it holds.

-- name: broken_progress
-- 1. What the shards say was done is what stands: made minus removed = rows.
SELECT c.cycle_code AS subject, format('shards say %s rows, %s stand', s.said, r.standing) AS detail
FROM contribution_cycles AS c
CROSS JOIN LATERAL (
    SELECT coalesce(sum(CASE j.kind WHEN 'create_contributions' THEN s.processed ELSE -s.processed END), 0) AS said
    FROM batch_jobs AS j
    JOIN batch_job_shards AS s ON s.tenant_id = j.tenant_id AND s.job_id = j.job_id
    WHERE j.tenant_id = c.tenant_id AND j.subject_id = c.cycle_id
      AND j.kind IN ('create_contributions', 'remove_contributions')
) AS s
CROSS JOIN LATERAL (
    SELECT count(*) AS standing FROM contributions AS b
    WHERE b.tenant_id = c.tenant_id AND b.cycle_id = c.cycle_id
) AS r
WHERE c.tenant_id = :tenant_id AND s.said <> r.standing;

-- name: broken_active_cycles
-- 2. An Active or Completed cycle holds exactly the members who owed at as_of, and its counts are the rows'.
SELECT c.cycle_code AS subject, format(
    '%s rows, %s owed, %s recorded; %s owe and have none, %s have one and do not owe; %s/%s paid, %s/%s failed',
    r.standing, o.owed, c.total_members, d.missing, d.surplus, c.paid_members, r.paid, c.failed_members, r.failed
) AS detail
FROM contribution_cycles AS c
CROSS JOIN LATERAL (
    SELECT
        count(*) AS standing,
        count(*) FILTER (WHERE b.contribution_status = 'Paid') AS paid,
        count(*) FILTER (WHERE b.contribution_status = 'Failed') AS failed
    FROM contributions AS b WHERE b.tenant_id = c.tenant_id AND b.cycle_id = c.cycle_id
) AS r
CROSS JOIN LATERAL (
    SELECT count(*) AS owed FROM tier_memberships AS m
    WHERE m.tenant_id = c.tenant_id AND m.tier_id = c.tier_id AND m.member_id <> c.deceased_member_id
      AND m.valid_from <= c.as_of AND (m.valid_to IS NULL OR m.valid_to > c.as_of)
) AS o
CROSS JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE b.member_id IS NULL) AS missing,
        count(*) FILTER (WHERE m.member_id IS NULL) AS surplus
    FROM (
        SELECT m.member_id FROM tier_memberships AS m
        WHERE m.tenant_id = c.tenant_id AND m.tier_id = c.tier_id AND m.member_id <> c.deceased_member_id
          AND m.valid_from <= c.as_of AND (m.valid_to IS NULL OR m.valid_to > c.as_of)
    ) AS m
    FULL JOIN (
        SELECT b.member_id FROM contributions AS b WHERE b.tenant_id = c.tenant_id AND b.cycle_id = c.cycle_id
    ) AS b ON b.member_id = m.member_id
) AS d
WHERE c.tenant_id = :tenant_id AND c.cycle_status IN ('Active', 'Completed')
  AND (
      c.total_members IS NULL OR r.standing <> c.total_members OR o.owed <> c.total_members
      OR d.missing + d.surplus > 0 OR r.paid <> c.paid_members OR r.failed <> c.failed_members
  );

-- name: broken_states
-- 3a. A cycle and its job tell the same story.
SELECT c.cycle_code AS subject, format('the cycle is %s, its job is %s', c.cycle_status, coalesce(j.state, 'missing')) AS detail
FROM contribution_cycles AS c
LEFT JOIN batch_jobs AS j
    ON j.tenant_id = c.tenant_id AND j.subject_id = c.cycle_id AND j.kind = 'create_contributions'
WHERE c.tenant_id = :tenant_id
  AND coalesce(CASE c.cycle_status
      WHEN 'Initializing' THEN j.state IN ('Queued', 'Processing', 'Paused')
      WHEN 'Active' THEN j.state = 'Completed'
      WHEN 'Completed' THEN j.state = 'Completed'
      WHEN 'Failed' THEN j.state = 'Failed'
      WHEN 'Cancelled' THEN j.state = 'Cancelled'
  END, false) IS FALSE;

-- name: broken_jobs
-- 3b. Nobody holds a lease on a job that does not run, and a job that should run can: it is leased or due.
SELECT j.kind || ' ' || j.job_id AS subject, format(
    '%s with %s shards: %s leased, %s not done, %s put off for over an hour', j.state, s.shards, s.leased, s.open, s.stuck
) AS detail
FROM batch_jobs AS j
CROSS JOIN LATERAL (
    SELECT
        count(*) AS shards,
        count(s.lease_token) AS leased,
        count(*) FILTER (WHERE NOT s.done) AS open,
        count(*) FILTER (WHERE NOT s.done AND s.next_attempt_at > clock_timestamp() + interval '1 hour') AS stuck
    FROM batch_job_shards AS s WHERE s.tenant_id = j.tenant_id AND s.job_id = j.job_id
) AS s
WHERE j.tenant_id = :tenant_id
  AND CASE
      WHEN j.state IN ('Queued', 'Processing') THEN s.open = 0 OR s.stuck > 0
      WHEN j.state = 'Completed' THEN s.leased > 0 OR s.open > 0
      ELSE s.leased > 0
  END;

-- name: broken_events
-- 4. An aggregate's events are numbered without gaps up to its row's version, and tell the row's status.
-- (`guthi events replay` compares every field.)
SELECT coalesce(a.aggregate_type, e.aggregate_type) || ' ' || coalesce(a.aggregate_id, e.aggregate_id) AS subject, format(
    '%s events from version %s to %s, the row has %s; they say %s, the row %s',
    coalesce(e.events, 0), e.first_version, e.last_version, a.version, e.status, a.status
) AS detail
FROM (SELECT aggregate_type, aggregate_id, version, status FROM aggregates WHERE tenant_id = :tenant_id) AS a
FULL JOIN (
    SELECT
        aggregate_id, min(aggregate_type) AS aggregate_type, count(*) AS events,
        min(version) AS first_version, max(version) AS last_version,
        max(version) FILTER (WHERE event_type LIKE '%Adopted') AS adopted_version,
        (array_agg(coalesce(payload ->> 'cycleStatus', payload ->> 'status') ORDER BY version DESC)
            FILTER (WHERE payload ?| ARRAY['cycleStatus', 'status']))[1] AS status
    FROM events WHERE tenant_id = :tenant_id
    GROUP BY aggregate_id
) AS e ON e.aggregate_id = a.aggregate_id
WHERE e.last_version IS DISTINCT FROM a.version
   OR e.first_version <> coalesce(e.adopted_version, 1)
   OR e.events <> e.last_version - e.first_version + 1
   OR e.status IS DISTINCT FROM a.status;

-- name: broken_counters
-- 5. Every number up to a counter's value is in use exactly once, but for those that it jumped over.
SELECT coalesce(n.name, u.name) AS subject, format(
    'the counter says %s with %s skipped, %s are in use up to %s', n.value, n.skipped, coalesce(u.used, 0), u.highest
) AS detail
FROM (SELECT name, value, skipped FROM counters WHERE tenant_id = :tenant_id) AS n
FULL JOIN counter_usage(:tenant_id) AS u ON u.name = n.name
WHERE coalesce(n.value, 0) < u.highest OR coalesce(n.value - n.skipped, 0) <> coalesce(u.used, 0);

-- name: broken_memberships
-- 7. An Active member has an open membership in their tier (a unique index allows no second one), no other has any.
SELECT coalesce(m.member_number, m.member_id::text) AS subject, format(
    'the member is %s in tier %s, the open membership is in %s', m.status, m.tier_id, coalesce(o.tier_id::text, 'none')
) AS detail
FROM members AS m
LEFT JOIN tier_memberships AS o
    ON o.tenant_id = m.tenant_id AND o.member_id = m.member_id AND o.valid_to IS NULL
WHERE m.tenant_id = :tenant_id
  AND o.tier_id IS DISTINCT FROM CASE WHEN m.status = 'Active' THEN m.tier_id END;

-- name: broken_partitions
-- Rows of a month whose partition was not made in time: make_partitions moves them.
SELECT late.subject, format('%s rows have no partition of their own', late.standing) AS detail
FROM (
    SELECT 'contributions_default' AS subject, count(*) AS standing FROM contributions
    WHERE tenant_id = :tenant_id AND tableoid = 'contributions_default'::regclass
    UNION ALL
    SELECT 'audit_log_default', count(*) FROM audit_log
    WHERE tenant_id = :tenant_id AND tableoid = 'audit_log_default'::regclass
) AS late
WHERE late.standing > 0;
