"""What a worker does when the bell rings: lease a shard, walk it batch by batch, end it.

A job moves by four kinds of transaction, each of which may be the last one this process lives to see:

    lease   job row, then a free shard; counts a lease that ran out as an attempt
    plan    once a job: count the keys, cut them into shards; a job of one batch is walked and ended here too
    batch   the shard row by its token, the rows, the cursor: together or not at all
    end     job row, then the shard; whoever ends the last one completes the job

Retries live in PostgreSQL and never in arq, which gives up without a word.
"""

import asyncio
import contextlib
import random
from dataclasses import dataclass, replace
from datetime import timedelta
from time import perf_counter
from typing import Any
from uuid import UUID, uuid4

from core.errors import LeaseLostError, NotFoundError, WorkerDiedError
from core.telemetry import bound, emit, lasting
from db.database import Actor, Transaction, acting_as
from db.queries import sql
from db.retriable import is_retriable
from jobs.engine.batch_size import BatchSize
from jobs.engine.engine import Engine, log_job
from jobs.engine.failure import failure_detail
from jobs.engine.model import RUNNABLE, Job, JobState, Lease
from jobs.engine.progress import ShardProgress
from jobs.engine.transitions import complete_job, fail_job, lock_job, set_state

LEASE_TAKEN_IN, BATCH_DONE_IN = 6, 24
"""In leases: what PostgreSQL gives such a transaction before it takes the worker for frozen and frees the locks."""
SAMPLE_SECONDS = 0.5
"""Shortest time between two samples of a shard's progress."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one batch did. `is_last`: no key of the shard is left."""

    rows: int
    processed: int
    is_last: bool


async def run_job(engine: Engine, tenant_id: UUID, job_id: UUID) -> None:
    """Answer one ring: run shards of the job until none is free, or for a slice of time.

    Any number of runners may do this at once; the lease admits one to a shard and `job_parallelism` to a job.
    Raises nothing that a retry helps: the sweeper rings again.
    """
    with bound(tenant_id=str(tenant_id), job_id=str(job_id)), acting_as(Actor(job_id=job_id)):
        try:
            await _run_slice(engine, tenant_id, job_id)
        except NotFoundError:
            emit("job_unknown")
        except Exception as error:
            if not is_retriable(error):
                raise
            emit("run_broken_off", error=repr(error))


async def run_inline(engine: Engine, tx: Transaction, job: Job) -> Job:
    """The same statements in the caller's own transaction: all or nothing, and no lease is ever seen."""
    lease = await _lease(engine, tx, job)
    assert lease is not None, "a job that nobody else can see has a free shard"
    lease, _ = await _plan(engine, tx, lease, shard_rows=None)
    size = BatchSize(engine.settings)
    while lease.job.total and not (await _batch(engine, tx, lease, size.rows)).is_last:
        pass
    await _check(engine, tx, lease)
    completed = await _end(engine, tx, lease, lease.job)
    assert completed is not None, "an inline job has one shard"
    return completed


async def _run_slice(engine: Engine, tenant_id: UUID, job_id: UUID) -> None:
    if engine.stopping.is_set():  # what this worker heard and can no longer answer is for another one
        await engine.bell.ring(job_id, tenant_id)
        return
    now = asyncio.get_running_loop().time
    slice_ends = now() + engine.settings.slice_seconds
    while lease := await _take_lease(engine, tenant_id, job_id):
        which = {"shard_no": lease.shard_no, "attempt": lease.attempt}
        trace = {"traceparent": lease.job.trace_context, "tenant_id": tenant_id, "job_id": job_id}
        with engine.running(lease), bound(**which), lasting("shard_run", kind=lease.job.kind, **which, **trace):
            if not await _run_shard(engine, lease, slice_ends):
                return
        if engine.stopping.is_set() or now() >= slice_ends:
            told = await engine.bell.ring(job_id, tenant_id, lease.job.priority)
            if told or engine.stopping.is_set():
                return
            # Nobody can be told while Redis is away, so nobody else waits for this slot either.
            slice_ends = now() + engine.settings.slice_seconds


async def _take_lease(engine: Engine, tenant_id: UUID, job_id: UUID) -> Lease | None:
    longest = LEASE_TAKEN_IN * engine.settings.lease_seconds
    async with engine.database.transaction(tenant_id, longest=longest) as tx:
        job = await lock_job(tx, job_id)
        lease = await _lease(engine, tx, job) if job.state in RUNNABLE else None
    engine.faults.reach("after_lease")
    return lease


async def _lease(engine: Engine, tx: Transaction, job: Job) -> Lease | None:
    token = uuid4()
    shard = await sql.lease_shard(
        tx.connection,
        tenant_id=tx.tenant_id,
        job_id=job.job_id,
        lease_token=token,
        lease_holder=engine.settings.process_name,
        lease=timedelta(seconds=engine.settings.lease_seconds),
        parallelism=engine.settings.job_parallelism,
    )
    if shard is None:
        return None
    if shard["was_lost"]:
        emit("lease_expired", shard_no=shard["shard_no"], attempts=shard["attempts"])
        await log_job(tx, job, "lease_expired", level="warning", shard_no=shard["shard_no"], cursor=shard["cursor"])
        if shard["attempts"] >= engine.settings.max_attempts:
            died = WorkerDiedError(shard["attempts"], shard["cursor"])
            await fail_job(engine, tx, job, str(died), failure_detail(died, shard))
            return None
    if job.state is JobState.QUEUED:
        job = await set_state(engine, tx, job, JobState.PROCESSING)
    return Lease(job, shard["shard_no"], token, shard["shard_count"], shard["attempts"] + 1)


async def _run_shard(engine: Engine, lease: Lease, slice_ends: float) -> bool:
    """True when the shard ended or was given back; False when it was lost or failed."""
    try:
        if lease.job.total is None:
            planned = await _plan_and_ring(engine, lease)
            if planned is None:
                return True
            lease = planned
        at_end = not lease.job.total or await _run_batches(engine, lease, slice_ends)
        async with engine.database.transaction(lease.job.tenant_id) as tx:
            if at_end:
                await _check(engine, tx, lease)
                await _end(engine, tx, lease, await lock_job(tx, lease.job.job_id))
            else:
                await sql.release_shard(tx.connection, **_held(tx, lease))
        engine.faults.reach("after_end")
    except LeaseLostError:
        emit("lease_lost")
        return False
    except Exception as error:
        await _record_failure(engine, lease, error)
        return False
    return True


async def _run_batches(engine: Engine, lease: Lease, slice_ends: float) -> bool:
    """False when the slice is over, or the process stops, before the shard's last key."""
    loop = asyncio.get_running_loop()
    size, rate, started = BatchSize(engine.settings), 0.0, perf_counter()
    sample_at = loop.time() + SAMPLE_SECONDS
    longest = BATCH_DONE_IN * engine.settings.lease_seconds
    while True:
        async with engine.database.transaction(lease.job.tenant_id, durable=False, longest=longest) as tx:
            is_due = loop.time() >= sample_at
            batch = await _batch(engine, tx, lease, size.rows, sample=is_due)
            engine.faults.reach("before_commit")
        engine.faults.reach("after_commit")
        sample_at = loop.time() + SAMPLE_SECONDS if is_due else sample_at
        seconds, started = perf_counter() - started, perf_counter()
        rate = batch.rows / seconds if not rate else 0.7 * rate + 0.3 * batch.rows / seconds
        size.learn(batch.rows, seconds)
        emit("batch_done", kind=lease.job.kind, rows=batch.rows, seconds=seconds)
        shown = ShardProgress(lease.shard_no, batch.processed, 0.0 if batch.is_last else rate)
        engine.progress.report(lease.job, lease.shard_count, shown)
        if batch.is_last:
            return True
        if engine.stopping.is_set() or loop.time() >= slice_ends:
            return False


async def _batch(engine: Engine, tx: Transaction, lease: Lease, rows: int, *, sample: bool = False) -> Batch:
    """One batch in one transaction. The shard's row stays locked, so no lease is taken from inside of one.

    `sample`, or the shard's last batch: how far it is now is kept for the rate over the run.
    """
    job, kind = lease.job, engine.kind(lease.job)
    shard = await _lock_shard(tx, lease)
    if shard["cursor"] is not None and shard["cursor"] == shard["upper"]:
        return Batch(0, shard["processed"], is_last=True)
    engine.faults.reach("in_batch")
    cursor = shard["cursor"] or kind.lowest
    # The plan counted an only shard, so its last batch need not be looked for: a quarter of a small job's reading.
    fits = lease.shard_count == 1 and (job.total or 0) - shard["processed"] <= rows
    async with tx.planned_anew() if kind.planned_anew else contextlib.nullcontext():
        found = None if fits else await kind.find_bound(tx, job, cursor, shard["upper"], rows)
        reach = found or shard["upper"]
        walked = await kind.run_batch(tx, job, cursor, reach)
    engine.faults.reach("before_advance")
    is_last = reach == shard["upper"]
    advance = sql.advance_and_sample_shard if sample or is_last else sql.advance_shard
    processed = await advance(
        tx.connection,
        **_held(tx, lease),
        cursor=reach,
        rows=walked,
        lease=timedelta(seconds=engine.settings.lease_seconds),
    )
    return Batch(walked, processed, is_last)


async def _plan_and_ring(engine: Engine, lease: Lease) -> Lease | None:
    """None: the job fits into one batch, so that was done and ended in the same transaction, with one commit."""
    size, started = BatchSize(engine.settings), perf_counter()
    async with engine.database.transaction(lease.job.tenant_id) as tx:
        job = await lock_job(tx, lease.job.job_id)
        await _lock_shard(tx, lease)
        planned, shard_count = await _plan(engine, tx, replace(lease, job=job), engine.settings.shard_rows)
        total = planned.job.total or 0
        at_once = shard_count == 1 and total <= size.rows
        if at_once:
            if total:
                await _batch(engine, tx, planned, size.rows)
            await _check(engine, tx, planned)
            await _end(engine, tx, planned, planned.job)
            engine.faults.reach("before_commit")
    engine.faults.reach("after_plan")
    if at_once:
        emit("batch_done", kind=job.kind, rows=total, seconds=perf_counter() - started)
        engine.faults.reach("after_commit")
        return None
    for _ in range(min(shard_count, engine.settings.job_parallelism) - 1):
        await engine.bell.ring(job.job_id, job.tenant_id, job.priority)
    return planned


async def _plan(engine: Engine, tx: Transaction, lease: Lease, shard_rows: int | None) -> tuple[Lease, int]:
    """Count the keys and cut them into shards of about the same size; `shard_rows=None`: one shard.

    One pass does both: it hops from bound to bound, `shard_rows` keys apart, and counts what is left after them.
    """
    kind, job = engine.kind(lease.job), lease.job
    hops: list[str] = []
    async with tx.planned_anew():
        if shard_rows and not kind.one_shard:
            while hop := await kind.find_bound(tx, job, hops[-1] if hops else kind.lowest, kind.highest, shard_rows):
                hops.append(hop)
        rest = await kind.count(tx, job, hops[-1] if hops else kind.lowest)
        last = await kind.last_key(tx, job)
    total = len(hops) * (shard_rows or 0) + rest
    shard_count = max(1, min(len(hops), 4 * engine.settings.job_parallelism))
    bounds = [hops[len(hops) * n // shard_count - 1] for n in range(1, shard_count)]
    if last is not None:
        await sql.cut_shards(tx.connection, tenant_id=tx.tenant_id, job_id=job.job_id, bounds=[*bounds, last])
    row = await sql.plan_job(tx.connection, tenant_id=tx.tenant_id, job_id=job.job_id, total=total)
    await log_job(tx, job, "job_planned", total=total, shards=shard_count)
    emit("job_planned", kind=job.kind, total=total, shards=shard_count)
    return replace(lease, job=Job.from_row(row), shard_count=shard_count), shard_count


async def _check(engine: Engine, tx: Transaction, lease: Lease) -> None:
    """Hold what a walked shard counted against what stands. Without the job's lock: shards are checked side by side."""
    kind = engine.kind(lease.job)
    shard = await sql.get_shard(tx.connection, tenant_id=tx.tenant_id, job_id=lease.job.job_id, shard_no=lease.shard_no)
    # The last shard answers for every key above it too: a row where no member owes is as wrong as a missing one.
    upper = kind.highest if lease.shard_no == lease.shard_count - 1 else shard["upper"]
    async with tx.planned_anew():
        await kind.check_shard(tx, lease.job, shard["lower"] or kind.lowest, upper, shard["processed"])


async def _end(engine: Engine, tx: Transaction, lease: Lease, job: Job) -> Job | None:
    """End a shard; its job, which is locked, when no other is left. The lock lets two that end together not miss it."""
    left = await sql.end_shard(tx.connection, **_held(tx, lease))
    if left is None:
        raise LeaseLostError(job.job_id, lease.shard_no)
    engine.faults.reach("before_complete")
    return await complete_job(engine, tx, job) if left == 0 else None


async def _record_failure(engine: Engine, lease: Lease, error: Exception) -> None:
    """Count the attempt, or fail the job at once when no retry can help.

    If even this cannot be written, the lease runs out and is counted by whoever takes it next.
    """
    reason = f"{type(error).__name__}: {error}"
    emit("attempt_failed", error=reason, retriable=is_retriable(error))
    async with engine.database.transaction(lease.job.tenant_id) as tx:
        job = await lock_job(tx, lease.job.job_id)
        try:
            shard = await _lock_shard(tx, lease)
        except LeaseLostError:
            return
        attempts = shard["attempts"] + 1
        if not is_retriable(error) or attempts >= engine.settings.max_attempts:
            at = f"attempt {attempts}, at cursor {shard['cursor'] or 'start'}"
            detail = failure_detail(error, {**shard, "shard_no": lease.shard_no, "attempts": attempts})
            await fail_job(engine, tx, job, f"{reason} ({at})", detail)
            return
        backoff = engine.settings.backoff_seconds * 2 ** (attempts - 1) * random.uniform(1, 1.25)
        await sql.postpone_shard(tx.connection, **_held(tx, lease), error=reason, backoff=timedelta(seconds=backoff))
        await log_job(tx, job, "attempt_failed", level="warning", error=reason, attempt=attempts)


async def _lock_shard(tx: Transaction, lease: Lease) -> Any:
    """The shard's row, held until the transaction ends. Raises `LeaseLostError`: then write nothing."""
    shard = await sql.lock_shard(tx.connection, **_held(tx, lease))
    if shard is None:
        raise LeaseLostError(lease.job.job_id, lease.shard_no)
    return shard


def _held(tx: Transaction, lease: Lease) -> dict[str, Any]:
    """What a query needs to touch only the shard that this lease holds."""
    return {
        "tenant_id": tx.tenant_id,
        "job_id": lease.job.job_id,
        "shard_no": lease.shard_no,
        "lease_token": lease.token,
    }
