-- name: next_number$
-- The counter's next number; its row stays locked until the row that uses the number is committed.
INSERT INTO counters AS counter (tenant_id, name, value) VALUES (:tenant_id, :name, 1)
ON CONFLICT (tenant_id, name) DO UPDATE SET value = counter.value + 1
RETURNING value;

-- name: make_missing_counters!
-- At 0, for codes that no counter gave; from here until the commit they are locked.
INSERT INTO counters (tenant_id, name)
SELECT :tenant_id, name FROM counter_usage(:tenant_id) ORDER BY name
ON CONFLICT (tenant_id, name) DO NOTHING;

-- name: lock_counters
-- Until the commit nobody takes a number. Those who have one already have committed its row, or given it back.
SELECT name, value, skipped FROM counters WHERE tenant_id = :tenant_id ORDER BY name FOR UPDATE;

-- name: init_counters
-- Never back: a number that was given once is not given again. The caller holds the counters' locks.
WITH planned AS (
    SELECT
        c.name, c.value AS old_value, c.skipped AS old_skipped, coalesce(u.used, 0) AS used,
        greatest(c.value, u.highest) AS value
    FROM counters AS c
    LEFT JOIN counter_usage(:tenant_id) AS u ON u.name = c.name
    WHERE c.tenant_id = :tenant_id
), moved AS (
    UPDATE counters AS c SET value = p.value, skipped = p.value - p.used
    FROM planned AS p
    WHERE c.tenant_id = :tenant_id AND c.name = p.name
      AND (c.value, c.skipped) IS DISTINCT FROM (p.value, p.value - p.used)
    RETURNING c.name
)
SELECT p.name, p.used, p.old_value, p.value, p.old_skipped, p.value - p.used AS skipped, m.name IS NOT NULL AS changed
FROM planned AS p
LEFT JOIN moved AS m ON m.name = p.name
ORDER BY p.name;
