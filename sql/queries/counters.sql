-- name: next_number$
-- The counter's next number; its row stays locked until the row that uses the number is committed.
INSERT INTO counters AS counter (tenant_id, name, value) VALUES (:tenant_id, :name, 1)
ON CONFLICT (tenant_id, name) DO UPDATE SET value = counter.value + 1
RETURNING value;
