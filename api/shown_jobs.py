"""Batch jobs as they are shown: the engine's rows with the names that people have for things."""

from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID

from api.answers import BatchJob, Row, Shard
from core.errors import NotFoundError
from db.database import Transaction
from db.queries import sql
from jobs.engine.engine import Engine
from jobs.engine.model import Job
from jobs.engine.progress import Progress
from jobs.engine.transitions import allowed_verbs


async def get_job(tx: Transaction, job_id: UUID) -> Job:
    """Raises `NotFoundError`."""
    row = await sql.get_job(tx.connection, tenant_id=tx.tenant_id, job_id=job_id)
    if row is None:
        raise NotFoundError("job", job_id)
    return Job.from_row(row)


async def show_jobs(engine: Engine, tx: Transaction, jobs: Sequence[Job]) -> list[BatchJob]:
    """Their shards and names are read together; the rates are averages since the start."""
    asked = {"tenant_id": tx.tenant_id, "job_ids": [job.job_id for job in jobs]}
    shards: defaultdict[UUID, list[Row]] = defaultdict(list)
    async for row in sql.list_shards(tx.connection, **asked):
        shards[row["job_id"]].append(row)
    names = {row["job_id"]: row async for row in sql.list_job_names(tx.connection, **asked)}
    return [_show(engine, job, shards[job.job_id], names[job.job_id]) for job in jobs]


async def with_live_rates(engine: Engine, tenant_id: UUID, jobs: Sequence[BatchJob]) -> list[BatchJob]:
    """The rates of the last batches, where Redis knows them. Not for inside of a transaction: Redis may be slow."""
    live = await engine.progress.read_many(tenant_id, [(job.kind, job.subject_id) for job in jobs])
    return [_at_rate(job, known) for job, known in zip(jobs, live, strict=True)]


def _at_rate(job: BatchJob, live: Progress | None) -> BatchJob:
    if live is None or live.state is not job.state:
        return job
    progress = Progress(job.state, job.total, job.processed, live.rate)
    left = progress.seconds_left
    return job.model_copy(update={"rate": round(live.rate, 1), "estimated_time_remaining": left})


def _show(engine: Engine, job: Job, shards: Sequence[Row], names: Row) -> BatchJob:
    progress = Progress.from_rows(job, shards)
    allowed = allowed_verbs(engine, job)
    return BatchJob(
        **{name: getattr(job, name) for name in BatchJob.model_fields if hasattr(job, name)},
        subject_code=names["subject_code"],
        created_by_name=names["created_by_name"],
        processed=progress.processed,
        percentage=progress.percentage,
        rate=round(progress.rate, 1),
        estimated_time_remaining=progress.seconds_left,
        allowed=allowed,
        can_retry="retry" in allowed,
        shards=[Shard.of(shard) for shard in shards],
    )
