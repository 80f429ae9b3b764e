"""The invariants: what is true at every instant. `guthi doctor`, the hourly reconcile and the tests ask the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from db.database import Connection
from db.queries import sql
from jobs.engine.model import Job
from jobs.engine.progress import Progress, ProgressBoard

INVARIANTS = (
    "broken_progress",
    "broken_active_cycles",
    "broken_states",
    "broken_jobs",
    "broken_events",
    "broken_counters",
    "broken_memberships",
    "broken_partitions",
)
"""Queries of `sql/queries/invariants.sql`; each is one statement and sees one snapshot."""
AUDIT = "broken_audit"
"""It reads the whole audit log: asked by doctor and `guthi audit verify`, not every hour."""


@dataclass(frozen=True, slots=True)
class Broken:
    """`invariant` names the query, `subject` the thing it found, `detail` says what does not agree.

    `tenant_id` is None for what all tenants share.
    """

    invariant: str
    tenant_id: UUID | None
    subject: str
    detail: str


async def broken_invariants(
    connection: Connection, board: ProgressBoard | None = None, names: Sequence[str] = INVARIANTS
) -> list[Broken]:
    """All that is broken in all tenants; empty when everything holds. For the owner's connection."""
    tenants = [row["tenant_id"] async for row in sql.tenant_ids(connection)]
    broken: list[Broken] = []
    for tenant_id in tenants:
        broken += await broken_in_tenant(connection, tenant_id, names, board)
    return broken


async def broken_in_tenant(
    connection: Connection, tenant_id: UUID, names: Sequence[str] = INVARIANTS, board: ProgressBoard | None = None
) -> list[Broken]:
    broken = [
        Broken(name, tenant_id, row["subject"], row["detail"])
        for name in names
        async for row in getattr(sql, name)(connection, tenant_id=tenant_id)
    ]
    return broken if board is None else broken + await _ahead_of_rows(connection, board, tenant_id)


async def broken_sequences(connection: Connection) -> list[Broken]:
    """Sequences whose next number is taken. They belong to no tenant; counters are `broken_counters`."""
    return [
        Broken(
            "broken_sequences",
            None,
            row["name"],
            f"{row['status']}: next {row['next_value']}, in use up to {row['max_used']}",
        )
        async for row in sql.check_sequence_health(connection)
        if row["kind"] == "sequence" and row["status"] != "ok"
    ]


async def _ahead_of_rows(connection: Connection, board: ProgressBoard, tenant_id: UUID) -> list[Broken]:
    """6. Redis is read before the rows, which only grow: it may lag behind them, never run ahead."""
    broken = []
    newest = [
        Job.from_row(row)
        async for row in sql.list_jobs(
            connection,
            tenant_id=tenant_id,
            kind=None,
            state=None,
            created_by=None,
            unfinished=False,
            before=UUID(int=2**128 - 1),
            limit=1_000,
        )
    ]
    for job in newest:
        shown = await board.read(tenant_id, job.kind, job.subject_id)
        shards = [s async for s in sql.list_shards(connection, tenant_id=tenant_id, job_ids=[job.job_id])]
        stands = Progress.from_rows(job, shards).processed
        if shown is not None and shown.processed > stands:
            detail = f"Redis shows {shown.processed}, {stands} are done"
            broken.append(Broken("redis_ahead", tenant_id, f"{job.kind} {job.job_id}", detail))
    return broken
