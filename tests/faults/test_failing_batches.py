"""Batches that fail: what a retry cannot help ends the job at once, what it can is tried again, and not for ever."""

from collections.abc import Callable
from uuid import UUID

import asyncpg

from jobs.engine.engine import Engine
from tests.cycles import SMALL_STEPS, becomes, count_rows, job_of, log_of, shards_of, start, steer
from tests.support import Society, Worker, assert_whole, cycle_status, make_society

StartWorker = Callable[..., Worker]
ONE_SHARD = SMALL_STEPS | {"GUTHI_SHARD_ROWS": 100_000}


async def forbid_the_middle_member(owner: asyncpg.Connection, society: Society) -> UUID:
    """Plants a constraint that one member in the middle of the keys breaks."""
    member_id: UUID = await owner.fetchval(
        "SELECT member_id FROM tier_memberships WHERE tenant_id = $1 ORDER BY member_id OFFSET $2 LIMIT 1",
        society.tenant_id,
        society.members // 2,
    )
    await owner.execute(f"ALTER TABLE contributions ADD CONSTRAINT planted CHECK (member_id <> '{member_id}')")
    return member_id


async def test_a_constraint_fails_the_job_at_once_and_a_retry_goes_on_from_the_cursor(
    engine: Engine, owner: asyncpg.Connection, start_worker: StartWorker, sampler: None
) -> None:
    society = await make_society(owner, members=5_000)
    culprit = await forbid_the_middle_member(owner, society)
    start_worker(**ONE_SHARD)
    cycle_id = await start(engine, society)
    await becomes(owner, cycle_id, "Failed")

    job, (shard,) = await job_of(owner, cycle_id), await shards_of(owner, cycle_id)
    assert job["state"] == "Failed"
    assert "planted" in job["error"]
    assert f"at cursor {shard['cursor']}" in job["error"]
    assert UUID(shard["cursor"]) < culprit
    assert not await log_of(owner, cycle_id, "attempt_failed")
    made = await owner.fetch("SELECT member_id, xmin::text FROM contributions WHERE cycle_id = $1", cycle_id)
    assert len(made) == shard["processed"] == 2_400

    await owner.execute("ALTER TABLE contributions DROP CONSTRAINT planted")
    await steer(engine, society, "retry", job["job_id"])
    await becomes(owner, cycle_id, "Active")
    await assert_whole(owner, society, cycle_id)
    now = await owner.fetch("SELECT member_id, xmin::text FROM contributions WHERE cycle_id = $1", cycle_id)
    assert set(map(tuple, made)) <= set(map(tuple, now))  # the same rows, not made again
    events = await owner.fetch("SELECT event_type FROM events WHERE aggregate_id = $1 ORDER BY version", cycle_id)
    assert [event["event_type"].removeprefix("ContributionCycle") for event in events] == [
        "Initiated",
        "Failed",
        "Retried",
        "Activated",
    ]


async def test_a_retry_before_the_cause_is_mended_fails_again_and_loses_nothing(
    engine: Engine, owner: asyncpg.Connection, start_worker: StartWorker, sampler: None
) -> None:
    society = await make_society(owner, members=3_000)
    await forbid_the_middle_member(owner, society)
    start_worker(**SMALL_STEPS)  # several shards: those without the culprit get on
    cycle_id = await start(engine, society)
    await becomes(owner, cycle_id, "Failed")
    before = await count_rows(owner, cycle_id)
    job = await job_of(owner, cycle_id)
    await steer(engine, society, "retry", job["job_id"])
    await becomes(owner, cycle_id, "Failed")
    assert await count_rows(owner, cycle_id) >= before
    await owner.execute("ALTER TABLE contributions DROP CONSTRAINT planted")
    await steer(engine, society, "retry", job["job_id"])
    await becomes(owner, cycle_id, "Active")
    await assert_whole(owner, society, cycle_id)
    assert (await job_of(owner, cycle_id))["attempts"] == 2


async def test_a_transient_failure_is_tried_again_without_anybody_asking(
    engine: Engine, owner: asyncpg.Connection, start_worker: StartWorker, sampler: None
) -> None:
    society = await make_society(owner, members=3_000)
    start_worker(**ONE_SHARD, GUTHI_FAULTS="before_commit=disconnect@4,in_batch=disconnect@8")
    cycle_id = await start(engine, society)
    await becomes(owner, cycle_id, "Active")
    await assert_whole(owner, society, cycle_id)
    attempts = [entry["fields"] for entry in await log_of(owner, cycle_id, "attempt_failed")]
    assert len(attempts) == 2
    assert all('"attempt":1' in entry.replace(" ", "") for entry in attempts)  # progress began the count anew


async def test_a_transient_failure_that_does_not_pass_ends_after_three_attempts(
    engine: Engine, owner: asyncpg.Connection, start_worker: StartWorker, sampler: None
) -> None:
    society = await make_society(owner, members=1_000)
    start_worker(**ONE_SHARD, GUTHI_FAULTS="before_commit=disconnect")
    cycle_id = await start(engine, society)
    await becomes(owner, cycle_id, "Failed")
    job = await job_of(owner, cycle_id)
    assert job["error"] == "InjectedConnectionError: injected at before_commit (attempt 3, at cursor start)"
    assert len(await log_of(owner, cycle_id, "attempt_failed")) == 2
    assert await count_rows(owner, cycle_id) == 0


async def test_a_full_disk_is_waited_for(
    engine: Engine, owner: asyncpg.Connection, start_worker: StartWorker, sampler: None
) -> None:
    """As PostgreSQL reports it; the second batch hits it once."""
    society = await make_society(owner, members=1_000)
    await owner.execute(
        """
        CREATE SEQUENCE batches;
        GRANT USAGE ON SEQUENCE batches TO guthi_app;
        CREATE FUNCTION fill_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF nextval('batches') = 2 THEN RAISE 'could not extend file: No space left' USING ERRCODE = '53100'; END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER fill_disk BEFORE INSERT ON contributions FOR EACH STATEMENT EXECUTE FUNCTION fill_disk();
        """
    )
    start_worker(**ONE_SHARD)
    cycle_id = await start(engine, society)
    await becomes(owner, cycle_id, "Active")
    await assert_whole(owner, society, cycle_id)
    (failed,) = await log_of(owner, cycle_id, "attempt_failed")
    assert "No space left" in failed["fields"]


async def test_one_bad_job_leaves_the_worker_to_the_others(
    engine: Engine, owner: asyncpg.Connection, start_worker: StartWorker, sampler: None
) -> None:
    bad = await make_society(owner, members=1_000)
    good = await make_society(owner, members=1_000, prefix="GOO")
    await forbid_the_middle_member(owner, bad)
    worker = start_worker(**SMALL_STEPS)
    failing, fine = await start(engine, bad), await start(engine, good)
    await becomes(owner, fine, "Active")
    await becomes(owner, failing, "Failed")
    assert await cycle_status(owner, fine) == "Active"
    assert worker.process.poll() is None
