-- name: list_audit
-- Newest first, between two ids: what is not named does not matter.
SELECT *, table_name AS "table" FROM audit_log
WHERE tenant_id = :tenant_id
  AND entry_id < :before::uuid AND entry_id >= :since::uuid
  AND (:table::text IS NULL OR table_name = :table)
  AND (:record_id::text IS NULL OR record_id = :record_id)
  AND (:user_id::uuid IS NULL OR user_id = :user_id)
  AND (:operation::text IS NULL OR operation = :operation)
ORDER BY entry_id DESC
LIMIT :limit;

-- name: chain_audit
SELECT tenant_id, month, position, hash FROM chain_audit(:most);

-- name: audit_heads
-- Where the chains of all tenants end.
SELECT tenant_id, month, position, encode(hash, 'hex') AS hash FROM audit_heads ORDER BY tenant_id, month;

-- name: audit_hash_at$
-- What was chained there; NULL: nothing.
SELECT encode(hash, 'hex') FROM audit_log
WHERE tenant_id = :tenant_id AND position = :position
  AND entry_id >= uuidv7_floor(:month::date::timestamp AT TIME ZONE 'UTC')
  AND entry_id < uuidv7_floor((:month::date + interval '1 month') AT TIME ZONE 'UTC');

-- name: broken_audit
-- Entries that are not what was chained, places in a chain that nobody or two hold, ends that are not where they were.
-- Reads and hashes all of the log: for doctor and `guthi audit verify`, not for every hour.
WITH chained AS (
    SELECT
        a.entry_id, uuidv7_month(a.entry_id) AS month, a.position, a.hash,
        lag(a.position, 1, 0::bigint) OVER chain AS before,
        audit_hash(lag(a.hash, 1, ''::bytea) OVER chain, a.position, a) AS expected
    FROM audit_log AS a
    WHERE a.tenant_id = :tenant_id AND a.position IS NOT NULL
    WINDOW chain AS (PARTITION BY uuidv7_month(a.entry_id) ORDER BY a.position, a.entry_id)
), ends AS (
    SELECT DISTINCT ON (month) month, position, hash FROM chained ORDER BY month, position DESC, entry_id DESC
)
SELECT format('audit log %s, position %s', to_char(month, 'YYYY-MM'), position) AS subject, CASE
    WHEN position = before THEN format('entry %s was put into a place that is taken', entry_id)
    WHEN position > before + 1 THEN format('positions %s to %s are missing before entry %s', before + 1, position - 1, entry_id)
    ELSE format('entry %s, or the hash before it, is not what was chained', entry_id)
END AS detail
FROM chained
WHERE position <> before + 1 OR hash <> expected
UNION ALL
SELECT format('audit log %s, end', to_char(coalesce(h.month, e.month), 'YYYY-MM')), CASE
    WHEN h.position IS NULL THEN format('%s entries are chained, of which the book of ends knows nothing', e.position)
    WHEN coalesce(e.position, 0) < h.position
        THEN format('positions %s to %s are missing at the end', coalesce(e.position, 0) + 1, h.position)
    WHEN e.position > h.position THEN format('positions %s to %s were put in after the end', h.position + 1, e.position)
    ELSE format('position %s does not have the hash that was chained last', h.position)
END
FROM (SELECT month, position, hash FROM audit_heads WHERE tenant_id = :tenant_id) AS h
FULL JOIN ends AS e ON e.month = h.month
WHERE h.position IS DISTINCT FROM e.position OR h.hash IS DISTINCT FROM e.hash;
