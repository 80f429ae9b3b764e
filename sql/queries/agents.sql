-- name: insert_agent^
INSERT INTO agents (tenant_id, code, name, email) VALUES (:tenant_id, :code, :name, :email)
RETURNING *;

-- name: get_agent^
SELECT * FROM agents WHERE tenant_id = :tenant_id AND agent_id = :agent_id;

-- name: list_agents
SELECT * FROM agents
WHERE tenant_id = :tenant_id AND agent_id > :after::uuid
ORDER BY agent_id
LIMIT :limit;

-- name: update_agent^
-- A name that is NULL stays; an e-mail address is set when `sets_email`. No row: the version is not the present one.
UPDATE agents
SET name = coalesce(:name, name), email = CASE WHEN :sets_email::boolean THEN :email ELSE email END
WHERE tenant_id = :tenant_id AND agent_id = :agent_id AND version = :version
RETURNING *;

-- name: count_agents$
SELECT count(*) FROM agents WHERE tenant_id = :tenant_id AND agent_id > :cursor::uuid;

-- name: last_agent$
SELECT agent_id FROM agents WHERE tenant_id = :tenant_id ORDER BY agent_id DESC LIMIT 1;

-- name: find_agent$
SELECT agent_id FROM agents
WHERE tenant_id = :tenant_id
  AND agent_id > :cursor::uuid
  AND agent_id <= :upper::uuid
ORDER BY agent_id
OFFSET :skip LIMIT 1;

-- name: avoid_nested_loops!
-- For this transaction: of a cycle just made there are no statistics, and what is taken for one row is a million.
SET LOCAL enable_nestloop = off;

-- name: notify_agents$
-- One notification for each agent of the range who has members in the cycle; returns the agents walked.
WITH notified AS (
    INSERT INTO notifications AS n (tenant_id, cycle_id, agent_id, member_count, total_amount)
    SELECT b.tenant_id, :cycle_id, m.agent_id, count(*), sum(b.contribution_amount)
    FROM contributions AS b
    JOIN members AS m ON m.tenant_id = b.tenant_id AND m.member_id = b.member_id
    WHERE b.tenant_id = :tenant_id AND b.cycle_id = :cycle_id
      AND m.agent_id > :cursor::uuid AND m.agent_id <= :bound::uuid
    GROUP BY b.tenant_id, m.agent_id
)
SELECT count(*) FROM agents
WHERE tenant_id = :tenant_id
  AND agent_id > :cursor::uuid AND agent_id <= :bound::uuid;
