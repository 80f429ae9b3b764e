"""Every change of a job's state: what the engine does by itself, and what operators ask for.

Each function runs in the caller's transaction and locks the job row first. Pause and cancel take the leases
away in the same transaction: a batch that is running holds its shard's row, so they wait for that one, and
when they have answered no further row appears. No flag is polled; the fencing that serves crashes serves here.
The leases go first, so that a job's log lines are committed in the order of their numbers: a batch may write some.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any
from uuid import UUID

from core.errors import InvalidStatusTransitionError, NotFoundError
from core.telemetry import emit
from db.database import Transaction
from db.queries import sql
from db.retriable import is_retriable
from jobs.engine.engine import Engine, log_job, report_after_commit, start_jobs
from jobs.engine.model import TRANSITIONS, Job, JobState, check_transition


async def lock_job(tx: Transaction, job_id: UUID) -> Job:
    """The job, held until the transaction ends. Raises `NotFoundError`."""
    row = await sql.lock_job(tx.connection, tenant_id=tx.tenant_id, job_id=job_id)
    if row is None:
        raise NotFoundError("job", job_id)
    return Job.from_row(row)


def allowed_verbs(engine: Engine, job: Job) -> list[str]:
    """What an operator may ask for now: the state map and the job's kind say so, as the functions below do."""
    kind = engine.kinds.get(job.kind)
    allowed = {
        "pause": (job.state, JobState.PAUSED) in TRANSITIONS,
        "resume": job.state is JobState.PAUSED,
        "cancel": (job.state, JobState.CANCELLED) in TRANSITIONS and kind is not None and kind.can_cancel,
        "retry": job.state is JobState.FAILED and kind is not None,
    }
    return [verb for verb, is_allowed in allowed.items() if is_allowed]


async def set_state(
    engine: Engine,
    tx: Transaction,
    job: Job,
    state: JobState,
    error: str | None = None,
    error_detail: Mapping[str, Any] | None = None,
) -> Job:
    """Follow one arrow of the map, for a job that this transaction has locked.

    Raises `InvalidStatusTransitionError`, and then nothing was changed.
    """
    check_transition(job.state, state)
    row = await sql.set_job_state(
        tx.connection,
        tenant_id=tx.tenant_id,
        job_id=job.job_id,
        from_state=job.state,
        state=state,
        error=error,
        error_detail=error_detail,
    )
    level = "error" if state is JobState.FAILED else "info"
    await log_job(tx, job, f"job_{state.lower()}", level=level, **({"error": error} if error else {}))
    emit(f"job_{state.lower()}", job_id=job.job_id, kind=job.kind, error=error)
    return Job.from_row(row)


async def fail_job(engine: Engine, tx: Transaction, job: Job, reason: str, detail: Mapping[str, Any]) -> Job:
    """Give a locked job up: the reason is stored, every lease is gone, the rows and the cursors stay."""
    await sql.revoke_leases(tx.connection, tenant_id=tx.tenant_id, job_id=job.job_id)
    failed = await set_state(engine, tx, job, JobState.FAILED, reason, detail)
    if job.kind in engine.kinds:  # not to know the kind may be the very reason
        await _tell_kind(engine, tx, failed, reason)
    await report_after_commit(engine, tx, failed)
    return failed


async def _tell_kind(engine: Engine, tx: Transaction, failed: Job, reason: str) -> None:
    """A kind whose `on_failed` is broken must not keep its job from failing: it would go from lease to lease for ever.

    What it did is undone, and the log says so; the invariants tell what it left undone.
    """
    try:
        async with tx.savepoint():
            await engine.kind(failed).on_failed(tx, failed, reason)
    except Exception as error:
        if is_retriable(error):
            raise
        emit("on_failed_raised", job_id=failed.job_id, kind=failed.kind, error=repr(error))
        await log_job(tx, failed, "on_failed_raised", level="error", error=repr(error))


async def complete_job(engine: Engine, tx: Transaction, job: Job) -> Job:
    """All shards of a locked job are done: let its kind check and finish, start what follows."""
    rows = [r async for r in sql.list_shards(tx.connection, tenant_id=tx.tenant_id, job_ids=[job.job_id])]
    processed = sum(row["processed"] for row in rows)
    follow_ups = await engine.kind(job).on_completed(tx, job, processed)
    completed = await set_state(engine, tx, job, JobState.COMPLETED)
    await start_jobs(engine, tx, follow_ups)
    await report_after_commit(engine, tx, completed)
    return completed


async def pause_job(engine: Engine, tx: Transaction, job_id: UUID) -> Job:
    job = await lock_job(tx, job_id)
    await sql.revoke_leases(tx.connection, tenant_id=tx.tenant_id, job_id=job_id)
    paused = await set_state(engine, tx, job, JobState.PAUSED)
    await report_after_commit(engine, tx, paused)
    return paused


async def resume_job(engine: Engine, tx: Transaction, job_id: UUID) -> Job:
    job = await lock_job(tx, job_id)
    if job.state is not JobState.PAUSED:  # the map leads to Queued from Failed too, and that is a retry
        raise InvalidStatusTransitionError("job", job.state, JobState.QUEUED)
    return await _queue_again(engine, tx, job)


async def retry_job(engine: Engine, tx: Transaction, job_id: UUID) -> Job:
    """Take a failed job up from its cursors, every attempt forgiven."""
    job = await lock_job(tx, job_id)
    if job.state is not JobState.FAILED:
        raise InvalidStatusTransitionError("job", job.state, JobState.QUEUED)
    await sql.forgive_attempts(tx.connection, tenant_id=tx.tenant_id, job_id=job_id)
    queued = await _queue_again(engine, tx, job)
    await engine.kind(job).on_retried(tx, queued)
    return queued


async def cancel_job(engine: Engine, tx: Transaction, job_id: UUID) -> Job:
    """Give a job up for good; its kind says what cleans up after it."""
    job = await lock_job(tx, job_id)
    if not engine.kind(job).can_cancel:
        raise InvalidStatusTransitionError("job", job.state, JobState.CANCELLED)
    await sql.revoke_leases(tx.connection, tenant_id=tx.tenant_id, job_id=job_id)
    cancelled = await set_state(engine, tx, job, JobState.CANCELLED)
    await start_jobs(engine, tx, await engine.kind(job).on_cancelled(tx, cancelled))
    await report_after_commit(engine, tx, cancelled)
    return cancelled


async def _queue_again(engine: Engine, tx: Transaction, job: Job) -> Job:
    queued = await set_state(engine, tx, job, JobState.QUEUED)
    await report_after_commit(engine, tx, queued)
    for _ in range(engine.settings.job_parallelism):
        tx.after_commit(partial(engine.bell.ring, job.job_id, job.tenant_id, job.priority))
    return queued
