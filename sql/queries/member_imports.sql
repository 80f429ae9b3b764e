-- name: new_import_id$
SELECT uuidv7();

-- name: stage_import_rows!
INSERT INTO member_import_rows (
    tenant_id, import_id, line_no, full_name, gender, tier, agent, phone, email, status, joined_on, member_number, problem
)
SELECT :tenant_id, :import_id, r.* FROM unnest(
    :line_no::bigint[], :full_name::text[], :gender::text[], :tier::text[], :agent::text[], :phone::text[],
    :email::text[], :status::text[], :joined_on::text[], :member_number::text[], :problem::text[]
) AS r;

-- name: count_import_rows$
SELECT count(*) FROM member_import_rows
WHERE tenant_id = :tenant_id AND import_id = :import_id AND line_no > :cursor::bigint;

-- name: last_import_row$
SELECT line_no FROM member_import_rows WHERE tenant_id = :tenant_id AND import_id = :import_id
ORDER BY line_no DESC LIMIT 1;

-- name: find_import_row$
SELECT line_no FROM member_import_rows
WHERE tenant_id = :tenant_id AND import_id = :import_id
  AND line_no > :cursor::bigint AND line_no <= :upper::bigint
ORDER BY line_no
OFFSET :skip LIMIT 1;

-- name: avoid_sequential_scans!
-- For this transaction: a plan cached while members were few would read them all for each row once they are many.
SET LOCAL enable_seqscan = off;

-- name: count_import_range$
SELECT count(*) FROM member_import_rows
WHERE tenant_id = :tenant_id AND import_id = :import_id AND line_no > :cursor::bigint AND line_no <= :bound::bigint;

-- name: reject_import_rows!
-- Each problem of each bad row, into the job's log.
INSERT INTO batch_job_log (tenant_id, job_id, level, event, fields)
SELECT :tenant_id, :job_id, 'warning', 'row_rejected', jsonb_build_object(
    'line', c.line_no,
    'column', split_part(p.problem, ': ', 1),
    'reason', substr(p.problem, strpos(p.problem, ': ') + 2)
)
FROM checked_import_rows(:tenant_id, :import_id, :cursor, :bound) AS c
CROSS JOIN LATERAL unnest(c.problems) WITH ORDINALITY AS p (problem, n)
ORDER BY c.line_no, p.n;

-- name: lock_member_numbers!
-- One import or approval of a tenant at a time gives and moves numbers, so that what an import checked still holds.
SELECT pg_advisory_xact_lock(hashtextextended('member numbers ' || :tenant_id::uuid, 0));

-- name: lock_import_tiers
-- In one order, so that two imports cannot wait for each other.
SELECT lock_tier_shared(tier_id) FROM (
    SELECT DISTINCT t.tier_id FROM member_import_rows AS r
    JOIN tiers AS t ON t.tenant_id = r.tenant_id AND t.code = r.tier
    WHERE r.tenant_id = :tenant_id AND r.import_id = :import_id
      AND r.line_no > :cursor::bigint AND r.line_no <= :bound::bigint
    ORDER BY t.tier_id
) AS tier;

-- name: move_counters!
-- Past the numbers that the good rows bring along. Those it jumps over are remembered as skipped.
INSERT INTO counters AS counter (tenant_id, name, value, skipped)
SELECT :tenant_id, counter_name, max(counter_value), max(counter_value) - count(*)
FROM checked_import_rows(:tenant_id, :import_id, :cursor, :bound)
WHERE problems = '{}' AND counter_name IS NOT NULL
GROUP BY counter_name
ORDER BY counter_name
ON CONFLICT (tenant_id, name) DO UPDATE
SET value = greatest(counter.value, excluded.value),
    skipped = counter.skipped + greatest(counter.value, excluded.value) - counter.value
        - (excluded.value - excluded.skipped);

-- name: insert_imported_members!
-- The good rows become members, with numbers from the counters where they bring none, events and open memberships.
WITH good AS MATERIALIZED (
    SELECT
        c.line_no, c.full_name, c.gender, c.status, c.tier_id, c.agent_id, c.phone, c.email, c.joined_on,
        c.member_number, s.prefix || '-' || to_char(now() AT TIME ZONE 'UTC', 'YYYY') || '-' || c.gender AS series
    FROM checked_import_rows(:tenant_id, :import_id, :cursor, :bound) AS c
    JOIN tenants AS s ON s.tenant_id = :tenant_id
    WHERE c.problems = '{}'
), needed AS (
    SELECT series, count(*) AS numbers FROM good WHERE member_number IS NULL GROUP BY series
), given AS (
    INSERT INTO counters AS counter (tenant_id, name, value)
    SELECT :tenant_id, series, numbers FROM needed ORDER BY series
    ON CONFLICT (tenant_id, name) DO UPDATE SET value = counter.value + excluded.value
    RETURNING name, value
), numbered AS (
    SELECT good.*, given.value - needed.numbers
        + row_number() OVER (PARTITION BY good.series, good.member_number IS NULL ORDER BY good.line_no) AS number
    FROM good
    LEFT JOIN needed ON needed.series = good.series
    LEFT JOIN given ON given.name = good.series
), inserted AS (
    INSERT INTO members AS m (
        tenant_id, member_number, full_name, gender, status, tier_id, agent_id, phone, email, joined_on
    )
    SELECT
        :tenant_id,
        coalesce(member_number, series || '-' || lpad(number::text, greatest(6, length(number::text)), '0')),
        full_name, gender, status, tier_id, agent_id, phone, email, joined_on
    FROM numbered
    ORDER BY line_no
    RETURNING m.*
), recorded AS (
    INSERT INTO events AS e (tenant_id, aggregate_type, aggregate_id, version, event_type, payload, created_by)
    SELECT
        tenant_id, 'member', member_id, version, 'MemberImported',
        jsonb_build_object(
            'memberNumber', member_number, 'fullName', full_name, 'gender', gender, 'status', status,
            'tierId', tier_id, 'agentId', agent_id, 'phone', phone, 'email', email, 'joinedOn', joined_on, 'statusReason', status_reason,
            'reviewedAt', reviewed_at, 'approvedAt', approved_at, 'diedOn', died_on
        ), :created_by::uuid
    FROM inserted
)
INSERT INTO tier_memberships AS membership (tenant_id, tier_id, member_id, valid_from)
SELECT tenant_id, tier_id, member_id, clock_timestamp() FROM inserted WHERE status = 'Active';

-- name: delete_import_rows!
DELETE FROM member_import_rows
WHERE tenant_id = :tenant_id AND import_id = :import_id AND line_no > :cursor::bigint AND line_no <= :bound::bigint;

-- name: forget_import!
DELETE FROM member_import_rows WHERE tenant_id = :tenant_id AND import_id = :import_id;
