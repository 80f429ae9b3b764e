-- name: check_sequence_health
-- Owner only: it looks across tenants.
SELECT kind, name, table_name, column_name, max_used, next_value, status FROM check_sequence_health();

-- name: sequence_health_counts
SELECT kind, status, found FROM sequence_health_counts();

-- name: repair_sequence$
-- Owner only. Its next value, past the highest number in use.
SELECT repair_sequence(:name);
