"""The reckoning after a soak: what stands in PostgreSQL, held against what the officers were told."""

from collections.abc import Sequence
from uuid import UUID

import asyncpg

from domain.replay import Replayed, replay
from jobs.engine.progress import ProgressBoard
from jobs.invariants import AUDIT, INVARIANTS, broken_invariants, broken_sequences
from prove.soak_load import GOOD_ROWS, Officer, Record

UNSETTLED = """
SELECT format('%s %s is %s: %s', kind, job_id, state, error) FROM batch_jobs
WHERE state NOT IN ('Completed', 'Cancelled')
UNION ALL
SELECT format('%s events have no position', count(*)) FROM events WHERE position IS NULL HAVING count(*) > 0
"""
_OWNED = """
SELECT tenant_id, tier_id AS id FROM tiers UNION ALL SELECT tenant_id, agent_id FROM agents
UNION ALL SELECT tenant_id, user_id FROM users UNION ALL SELECT tenant_id, key_id FROM api_keys
UNION ALL SELECT tenant_id, member_id FROM members UNION ALL SELECT tenant_id, cycle_id FROM contribution_cycles
UNION ALL SELECT tenant_id, job_id FROM batch_jobs UNION ALL SELECT tenant_id, event_id FROM events
"""
_CROSSED = """
SELECT count(*) FROM contributions AS c
LEFT JOIN members AS m ON m.tenant_id = c.tenant_id AND m.member_id = c.member_id
LEFT JOIN contribution_cycles AS y ON y.tenant_id = c.tenant_id AND y.cycle_id = c.cycle_id
WHERE m.member_id IS NULL OR y.cycle_id IS NULL
"""
_UNTOLD = """
SELECT c.cycle_code FROM contribution_cycles AS c
WHERE c.cycle_status = 'Active' AND (
    SELECT count(*) FROM contributions AS b
    JOIN members AS m ON m.tenant_id = b.tenant_id AND m.member_id = b.member_id
    WHERE b.tenant_id = c.tenant_id AND b.cycle_id = c.cycle_id AND m.agent_id IS NOT NULL
) IS DISTINCT FROM (
    SELECT sum(n.member_count) FROM notifications AS n WHERE n.tenant_id = c.tenant_id AND n.cycle_id = c.cycle_id
)
"""


async def reckon(owner: asyncpg.Connection, officers: Sequence[Officer], record: Record, board: ProgressBoard) -> None:
    """Adds what is lost, doubled, leaked or broken to the record's findings."""
    for broken in await broken_invariants(owner, board, (*INVARIANTS, AUDIT)):
        record.find(f"{broken.invariant}: {broken.subject}: {broken.detail}")
    for broken in await broken_sequences(owner):
        record.find(f"{broken.invariant}: {broken.subject}: {broken.detail}")
    for officer in officers:
        async for difference in replay(owner, officer.society.tenant_id, Replayed()):
            record.find(f"events replayed differ: {difference}")
        await _cycles(owner, officer, record)
        await _imports(owner, officer, record)
        placed = await owner.fetchval("SELECT count(*) FROM events WHERE tenant_id = $1", officer.society.tenant_id)
        if officer.feed != placed:
            record.find(f"{officer.name} read {officer.feed} events of the feed, {placed} stand")
    names = {str(officer.society.tenant_id): officer.name for officer in officers}
    for row in await owner.fetch(_OWNED):
        shown_to = record.whose.get(str(row["id"]))
        if shown_to not in (None, names[str(row["tenant_id"])]):
            record.find(f"LEAK: {row['id']} of {names[str(row['tenant_id'])]} was shown to {shown_to}")
    if crossed := await owner.fetchval(_CROSSED):
        record.find(f"LEAK: {crossed} contributions are not of their society's members and cycles")
    for row in await owner.fetch(_UNTOLD):
        record.find(f"the agents were not told of every contribution of {row['cycle_code']}")


async def _cycles(owner: asyncpg.Connection, officer: Officer, record: Record) -> None:
    """Each key has its one cycle; each cycle has every member who never left, never the dead, and nobody twice."""
    rows = await owner.fetch(
        "SELECT cycle_id, cycle_status FROM contribution_cycles WHERE tenant_id = $1", officer.society.tenant_id
    )
    stand = {str(row["cycle_id"]): row["cycle_status"] for row in rows}
    answered = set(officer.cycles.values())
    for lost in answered - set(stand):
        record.find(f"LOST: {officer.name} was answered with cycle {lost}, which does not stand")
    for surplus in set(stand) - answered:
        record.find(f"DOUBLED: cycle {surplus} of {officer.name} was made for no key")
    if len(answered) != len(officer.cycles):
        record.find(f"two keys of {officer.name} were answered with the same cycle")
    for cycle_id, status in stand.items():
        members = await owner.fetch(
            "SELECT member_id FROM contributions WHERE tenant_id = $1 AND cycle_id = $2",
            officer.society.tenant_id,
            UUID(cycle_id),
        )
        owing = {row["member_id"] for row in members}
        record.done[f"cycles {status}"] += 1
        record.done["contributions standing"] += len(members)
        if len(owing) != len(members):
            record.find(f"DOUBLED: {len(members) - len(owing)} contributions in cycle {cycle_id}")
        if status == "Active" and (missing := len(set(officer.steady) - owing)):
            record.find(f"LOST: {missing} members who never left are not in cycle {cycle_id}")
        if officer.society.dead in owing:
            record.find(f"the deceased owes in cycle {cycle_id}")
        if status != "Active" and owing:
            record.find(f"{len(owing)} contributions are left of cycle {cycle_id}, which is {status}")


async def _imports(owner: asyncpg.Connection, officer: Officer, record: Record) -> None:
    """Each file that was answered brought its good rows, once; one that never was answered brought all or nothing."""
    rows = await owner.fetch(
        "SELECT full_name FROM members WHERE tenant_id = $1 AND full_name LIKE '% import %'", officer.society.tenant_id
    )
    names = [row["full_name"] for row in rows]
    record.done["members imported"] += len(names)
    if len(set(names)) != len(names):
        record.find(f"DOUBLED: {len(names) - len(set(names))} imported members of {officer.name}")
    for name, job_id in officer.imports.items():
        made = sum(each.startswith(f"{name} row ") for each in names)
        if made != GOOD_ROWS:
            record.find(f"LOST: {name} (job {job_id}) made {made} members of {GOOD_ROWS}")
