"""The state map: every arrow that it has can be followed, every other one is refused and changes nothing."""

import asyncio
import threading
from dataclasses import replace
from itertools import product
from uuid import UUID

import asyncpg
import pytest

from core.errors import InvalidStatusTransitionError, NotFoundError
from core.faults import Faults, InjectedError
from db.database import Database
from db.queries import sql
from jobs.engine.engine import Engine
from jobs.engine.model import TERMINAL, TRANSITIONS, JobState, check_transition
from jobs.engine.runner import run_job
from jobs.engine.transitions import lock_job, set_state
from tests.cycles import count_rows, job_of, log_of, shards_of, start, steer, tuned
from tests.support import Society, assert_whole, cycle_status, make_society, unguarded

NOT_IN_THE_MAP = [arrow for arrow in product(JobState, JobState) if arrow not in TRANSITIONS]
CYCLE_OF = {
    JobState.QUEUED: "Initializing",
    JobState.PROCESSING: "Initializing",
    JobState.PAUSED: "Initializing",
    JobState.COMPLETED: "Active",
    JobState.FAILED: "Failed",
    JobState.CANCELLED: "Cancelled",
}
ALLOWED = {
    "pause": {JobState.QUEUED, JobState.PROCESSING},
    "resume": {JobState.PAUSED},
    "retry": {JobState.FAILED},
    "cancel": {JobState.QUEUED, JobState.PROCESSING, JobState.PAUSED, JobState.FAILED},
}


async def put(owner: asyncpg.Connection, society: Society, engine: Engine, state: JobState) -> asyncpg.Record:
    """The job of a new cycle, as if it had come into `state`."""
    cycle_id = await start(engine, society)
    async with unguarded(owner, "batch_jobs", "contribution_cycles"):
        await owner.execute("UPDATE batch_jobs SET state = $1 WHERE subject_id = $2", state, cycle_id)
        await owner.execute(
            "UPDATE contribution_cycles SET cycle_status = $1 WHERE cycle_id = $2", CYCLE_OF[state], cycle_id
        )
    # The events follow the row's version.
    await owner.execute("UPDATE contribution_cycles SET version = 1 WHERE cycle_id = $1", cycle_id)
    return await job_of(owner, cycle_id)


def test_nothing_leads_out_of_completed_and_cancelled() -> None:
    assert {current for current, _ in TRANSITIONS if current in TERMINAL} == {JobState.FAILED}


@pytest.mark.parametrize(("current", "wanted"), NOT_IN_THE_MAP)
def test_an_arrow_that_the_map_does_not_have_is_refused(current: JobState, wanted: JobState) -> None:
    with pytest.raises(InvalidStatusTransitionError) as refused:
        check_transition(current, wanted)
    assert refused.value.context == {"current": current, "wanted": wanted}


async def test_set_state_refuses_what_the_map_does_not_have(
    engine: Engine, owner: asyncpg.Connection, society: Society
) -> None:
    for current, wanted in NOT_IN_THE_MAP:
        job_id = (await put(owner, society, engine, current))["job_id"]
        with pytest.raises(InvalidStatusTransitionError):
            async with engine.database.transaction(society.tenant_id) as tx:
                await set_state(engine, tx, await lock_job(tx, job_id), wanted)
        assert await owner.fetchval("SELECT state FROM batch_jobs WHERE job_id = $1", job_id) == current


async def test_the_query_itself_moves_only_what_is_in_the_state_it_names(
    engine: Engine, owner: asyncpg.Connection, society: Society
) -> None:
    job = await put(owner, society, engine, JobState.CANCELLED)
    async with engine.database.transaction(society.tenant_id) as tx:
        moved = await sql.set_job_state(
            tx.connection,
            tenant_id=society.tenant_id,
            job_id=job["job_id"],
            from_state="Queued",
            state="Processing",
            error=None,
            error_detail=None,
        )
    assert moved is None
    assert (await job_of(owner, job["subject_id"]))["version"] == job["version"]


@pytest.mark.parametrize("verb", ALLOWED)
async def test_steering_follows_the_map(engine: Engine, owner: asyncpg.Connection, society: Society, verb: str) -> None:
    for state in JobState:
        job = await put(owner, society, engine, state)
        if state in ALLOWED[verb]:
            await steer(engine, society, verb, job["job_id"])
            continue
        with pytest.raises(InvalidStatusTransitionError) as refused:
            await steer(engine, society, verb, job["job_id"])
        assert refused.value.context["current"] == state
        assert dict(await job_of(owner, job["subject_id"])) == dict(job)


async def test_a_removal_cannot_be_cancelled(engine: Engine, owner: asyncpg.Connection, society: Society) -> None:
    cycle_id = await start(engine, society)
    await steer(engine, society, "cancel", (await job_of(owner, cycle_id))["job_id"])
    removal = await job_of(owner, cycle_id, "remove_contributions")
    with pytest.raises(InvalidStatusTransitionError):
        await steer(engine, society, "cancel", removal["job_id"])


@pytest.mark.parametrize("verb", ALLOWED)
async def test_another_tenants_job_does_not_exist(
    engine: Engine, owner: asyncpg.Connection, society: Society, verb: str
) -> None:
    stranger = await make_society(owner, members=1, prefix="STR")
    job_id = (await job_of(owner, await start(engine, society)))["job_id"]
    with pytest.raises(NotFoundError):
        await steer(engine, stranger, verb, job_id)


class PauseAfter(Faults):
    """Stands for the API: pauses the job between two batches, from a thread with an event loop of its own."""

    def __init__(self, batches: int, engine: Engine, tenant_id: UUID, job_id: UUID) -> None:
        super().__init__(f"after_commit=error@{batches}")
        self._engine, self._tenant_id, self._job_id = engine, tenant_id, job_id

    def reach(self, point: str) -> None:
        try:
            super().reach(point)
        except InjectedError:
            thread = threading.Thread(target=lambda: asyncio.run(self._pause()))
            thread.start()
            thread.join()

    async def _pause(self) -> None:
        database = await Database.connect(self._engine.settings)
        job = {"tenant_id": self._tenant_id, "job_id": self._job_id}
        async with database.transaction(self._tenant_id) as tx:
            await sql.lock_job(tx.connection, **job)
            await sql.set_job_state(
                tx.connection, **job, from_state="Processing", state="Paused", error=None, error_detail=None
            )
            await sql.revoke_leases(tx.connection, **job)
        await database.close()


async def test_pause_takes_the_lease_of_a_run_in_progress(
    engine: Engine, owner: asyncpg.Connection, society: Society
) -> None:
    """Without a flag or a poll: the run finds its lease gone, and writes nothing."""
    cycle_id = await start(engine, society)
    job_id = (await job_of(owner, cycle_id))["job_id"]
    runner = tuned(engine, batch_rows=10)
    runner = replace(runner, faults=PauseAfter(4, engine, society.tenant_id, job_id))
    await run_job(runner, society.tenant_id, job_id)
    assert (await job_of(owner, cycle_id))["state"] == "Paused"
    assert await count_rows(owner, cycle_id) == 40
    (shard,) = await shards_of(owner, cycle_id)
    assert (shard["processed"], shard["lease_token"]) == (40, None)
    await steer(engine, society, "resume", job_id)
    await run_job(engine, society.tenant_id, job_id)
    await assert_whole(owner, society, cycle_id)


async def test_every_change_of_state_is_in_the_jobs_log(
    engine: Engine, owner: asyncpg.Connection, society: Society
) -> None:
    cycle_id = await start(engine, society)
    job_id = (await job_of(owner, cycle_id))["job_id"]
    for verb in ("pause", "resume"):
        await steer(engine, society, verb, job_id)
    await run_job(engine, society.tenant_id, job_id)
    for event in ("job_started", "job_paused", "job_queued", "job_processing", "job_planned", "job_completed"):
        assert len(await log_of(owner, cycle_id, event)) == 1, event


async def test_a_retry_forgives_every_attempt(engine: Engine, owner: asyncpg.Connection, society: Society) -> None:
    cycle_id = await start(engine, society)
    job_id = (await job_of(owner, cycle_id))["job_id"]
    await run_job(tuned(engine, max_attempts=1, faults="before_commit=disconnect"), society.tenant_id, job_id)
    assert (await job_of(owner, cycle_id))["state"] == "Failed"
    assert await cycle_status(owner, cycle_id) == "Failed"
    queued = await steer(engine, society, "retry", job_id)
    assert (queued.state, queued.attempts, queued.error) == (JobState.QUEUED, 1, None)
    (shard,) = await shards_of(owner, cycle_id)
    assert (shard["attempts"], shard["next_attempt_at"], shard["error"]) == (0, None, None)
    await run_job(engine, society.tenant_id, job_id)
    await assert_whole(owner, society, cycle_id)


async def test_a_kind_that_this_worker_does_not_know_fails_the_job_at_once(
    engine: Engine, owner: asyncpg.Connection, society: Society
) -> None:
    cycle_id = await start(engine, society)
    await owner.execute("UPDATE batch_jobs SET kind = 'from_the_future' WHERE subject_id = $1", cycle_id)
    job_id = await owner.fetchval("SELECT job_id FROM batch_jobs WHERE subject_id = $1", cycle_id)
    await run_job(engine, society.tenant_id, job_id)
    job = await job_of(owner, cycle_id, "from_the_future")
    assert job["state"] == "Failed"
    assert "from_the_future" in job["error"]
