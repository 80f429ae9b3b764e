"""The engine's parts, put together once a process, and how a job comes into being."""

import asyncio
import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

from core.errors import DuplicateResourceError
from core.faults import Faults
from core.settings import Settings
from core.telemetry import lasting
from core.tracing import current_traceparent
from db.database import Database, Transaction
from db.queries import sql
from jobs.engine.bell import Bell
from jobs.engine.model import BatchKind, Job, Lease, NewJob
from jobs.engine.presence import PresenceBoard
from jobs.engine.progress import ProgressBoard, ShardProgress


@dataclass(frozen=True)
class Engine:
    """What every function of the engine needs. `stopping` ends each run after the batch in hand."""

    database: Database
    bell: Bell
    progress: ProgressBoard
    presence: PresenceBoard
    settings: Settings
    kinds: dict[str, BatchKind]
    faults: Faults = field(default_factory=Faults)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    in_hand: dict[UUID, tuple[Lease, datetime]] = field(default_factory=dict)
    """The leases that this process works under, by token, and since when."""

    @contextlib.contextmanager
    def running(self, lease: Lease) -> Iterator[None]:
        """This process works under the lease while the block lasts."""
        self.in_hand[lease.token] = lease, datetime.now(UTC)
        try:
            yield
        finally:
            del self.in_hand[lease.token]

    def kind(self, job: Job) -> BatchKind:
        """A `KeyError` here means that a worker is older than the job's kind: it fails at once, and says so."""
        return self.kinds[job.kind]


async def start_job(engine: Engine, tx: Transaction, new: NewJob, *, ring: bool = True) -> Job:
    """Insert a job, `Queued`, with what asked for it; ring once that is committed.

    Raises `DuplicateResourceError` when the subject has a job of this kind already.
    """
    with lasting("job_start", kind=new.kind, tenant_id=tx.tenant_id) as started:
        row = await sql.insert_job(
            tx.connection,
            tenant_id=tx.tenant_id,
            kind=new.kind,
            subject_id=new.subject_id,
            params=dict(new.params),
            priority=new.priority,
            created_by=new.created_by,
            trace_context=current_traceparent(),
        )
        if row is None:
            told = f"{new.subject_id} has a {new.kind} job already"
            raise DuplicateResourceError(told, subject_id=str(new.subject_id))
        job = Job.from_row(row)
        started["job_id"] = job.job_id
        await log_job(tx, job, "job_started", priority=job.priority)
    if ring:
        tx.after_commit(partial(engine.bell.ring, job.job_id, job.tenant_id, job.priority))
        tx.after_commit(partial(engine.progress.write, job, 1, ShardProgress(0, 0)))
    return job


async def start_jobs(engine: Engine, tx: Transaction, jobs: Iterable[NewJob]) -> None:
    for new in jobs:
        await start_job(engine, tx, new)


async def log_job(tx: Transaction, job: Job, event: str, *, level: str = "info", **fields: Any) -> None:
    """A line for people, in the job's own log, committed with what it tells."""
    await sql.log_job(tx.connection, tenant_id=tx.tenant_id, job_id=job.job_id, level=level, event=event, fields=fields)


async def report_after_commit(engine: Engine, tx: Transaction, job: Job) -> None:
    """Show the job's new state, with every shard as it stands in this transaction."""
    rows = [r async for r in sql.list_shards(tx.connection, tenant_id=tx.tenant_id, job_ids=[job.job_id])]
    shards = [ShardProgress(row["shard_no"], row["processed"]) for row in rows]
    tx.after_commit(partial(engine.progress.write, job, len(rows), *shards))
