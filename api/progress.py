"""A cycle's progress: Redis first, PostgreSQL when Redis has nothing; polled, or streamed to many."""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from uuid import UUID

from api.answers import CreationProgress, ProgressCounts
from api.streams import to_event
from core.errors import NotFoundError
from db.queries import sql
from jobs.create_contributions import CreateContributions
from jobs.engine.engine import Engine
from jobs.engine.model import Job, JobState
from jobs.engine.progress import Progress, ShardProgress, progress_key

STATUS_OF_JOB = {
    JobState.QUEUED: "Initializing",
    JobState.PROCESSING: "Initializing",
    JobState.PAUSED: "Initializing",
    JobState.COMPLETED: "Active",
    JobState.FAILED: "Failed",
    JobState.CANCELLED: "Cancelled",
}
SHORTEST_GAP_SECONDS = 0.1


async def read_progress(engine: Engine, tenant_id: UUID, cycle_id: UUID) -> CreationProgress:
    """Raises `NotFoundError`. It never goes back: what PostgreSQL said is put up on the board as well."""
    progress = await engine.progress.read(tenant_id, CreateContributions.name, cycle_id)
    if progress is None:
        progress = await _read_rows(engine, tenant_id, cycle_id)
    return CreationProgress(
        cycle_id=cycle_id,
        status=STATUS_OF_JOB[progress.state],
        progress=ProgressCounts(
            total=progress.total or 0, processed=progress.processed, percentage=progress.percentage
        ),
        estimated_time_remaining=progress.seconds_left,
    )


async def _read_rows(engine: Engine, tenant_id: UUID, cycle_id: UUID) -> Progress:
    async with engine.database.transaction(tenant_id) as tx:
        row = await sql.find_job(tx.connection, tenant_id=tenant_id, kind=CreateContributions.name, subject_id=cycle_id)
        if row is None:
            raise NotFoundError("cycle", cycle_id)
        job = Job.from_row(row)
        shards = [s async for s in sql.list_shards(tx.connection, tenant_id=tenant_id, job_ids=[job.job_id])]
    progress = Progress.from_rows(job, shards)
    reported = [ShardProgress(s["shard_no"], s["processed"], progress.rate / len(shards)) for s in shards]
    await engine.progress.write(job, len(shards), *reported)
    return progress


@dataclass(frozen=True)
class ProgressNews:
    progress: CreationProgress

    def after(self, missed: "ProgressNews") -> "ProgressNews":
        return self

    @cached_property
    def event(self) -> bytes:
        return to_event("progress", self.progress.model_dump_json(by_alias=True))


class ProgressTopic:
    """One cycle's creation."""

    gap, is_behind = SHORTEST_GAP_SECONDS, False

    def __init__(self, engine: Engine, tenant_id: UUID, cycle_id: UUID) -> None:
        self.key: Hashable = ("progress", tenant_id, cycle_id)
        self.hint = progress_key(tenant_id, CreateContributions.name, cycle_id)
        self._engine, self._tenant_id, self._cycle_id = engine, tenant_id, cycle_id

    async def read(self) -> ProgressNews:
        return ProgressNews(await read_progress(self._engine, self._tenant_id, self._cycle_id))

    def present(self) -> ProgressNews | None:
        return None
