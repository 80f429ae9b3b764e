-- name: append_event!
-- Same transaction as the change. A version that is taken already is a defect, and the key says so.
INSERT INTO events (tenant_id, aggregate_type, aggregate_id, version, event_type, payload, created_by)
VALUES (:tenant_id, :aggregate_type, :aggregate_id, :version, :event_type, :payload, :created_by);

-- name: list_events
SELECT * FROM events WHERE tenant_id = :tenant_id AND aggregate_id = :aggregate_id ORDER BY version;
