"""A run: leases, slices, the plan, retries; and the whole job in one transaction."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import md5
from uuid import UUID, uuid4

import asyncpg
import pytest

from core.errors import InvalidInputError, PlanMismatchError
from core.faults import InjectedConnectionError, InjectedError
from core.settings import Settings
from db.database import Database, Transaction
from db.queries import sql
from domain.cycles import NewCycle
from jobs.create_contributions import CreateContributions, start_cycle
from jobs.engine.bell import connect_redis
from jobs.engine.engine import Engine
from jobs.engine.model import Job, NewJob
from jobs.engine.runner import run_job
from jobs.kinds import build_engine
from tests.cycles import count_rows, job_of, log_of, shards_of, start, steer, tuned
from tests.support import Society, assert_whole, cycle_status, eventually, make_society


async def ready(engine: Engine, owner: asyncpg.Connection, members: int) -> tuple[Society, UUID, UUID]:
    """A society, its cycle and the job of that."""
    society = await make_society(owner, members=members)
    cycle_id = await start(engine, society)
    return society, cycle_id, (await job_of(owner, cycle_id))["job_id"]


class Noting(CreateContributions):
    """Notes which shards are in a batch at the same time; each waits until `wanted` of them once were."""

    def __init__(self) -> None:
        self.inside: list[str] = []
        self.most = self.wanted = 0
        self.met = asyncio.Condition()

    async def run_batch(self, tx: Transaction, job: Job, cursor: str, bound: str) -> int:
        shard = await tx.connection.fetchval(
            "SELECT shard_no FROM batch_job_shards WHERE job_id = $1 AND upper >= $2 ORDER BY upper LIMIT 1",
            job.job_id,
            bound,
        )
        assert shard not in self.inside, "two runners in one shard"
        self.inside.append(shard)
        self.most = max(self.most, len(self.inside))
        try:
            await asyncio.sleep(0.005)
            async with self.met:
                self.met.notify_all()
                await self.met.wait_for(lambda: self.most >= self.wanted)
            return await super().run_batch(tx, job, cursor, bound)
        finally:
            self.inside.remove(shard)


@pytest.mark.parametrize("parallelism", [1, 2, 4])
async def test_each_shard_has_one_runner_and_a_job_no_more_than_it_may(
    engine: Engine, owner: asyncpg.Connection, settings: Settings, parallelism: int
) -> None:
    society, cycle_id, job_id = await ready(engine, owner, 3_000)
    roomy = await Database.connect(settings.model_copy(update={"database_pool_size": 20}))
    kind = Noting()
    runner = tuned(engine, batch_rows=50, shard_rows=150, job_parallelism=parallelism)
    runner = replace(runner, database=roomy, kinds={**engine.kinds, kind.name: kind})
    try:
        async with asyncio.TaskGroup() as runners:
            for _ in range(12):
                runners.create_task(run_job(runner, society.tenant_id, job_id))
            while not await count_rows(owner, cycle_id):
                await asyncio.sleep(0.005)
            kind.wanted = parallelism
            for _ in range(12):
                runners.create_task(run_job(runner, society.tenant_id, job_id))
        await run_job(runner, society.tenant_id, job_id)
    finally:
        await roomy.close()
    assert len(await shards_of(owner, cycle_id)) == 4 * parallelism
    assert kind.most == parallelism
    await assert_whole(owner, society, cycle_id)


async def test_a_lease_that_lives_is_not_taken(engine: Engine, owner: asyncpg.Connection) -> None:
    society, cycle_id, job_id = await ready(engine, owner, 100)
    await owner.execute(
        "UPDATE batch_job_shards SET lease_token = $2, lease_expires_at = now() + interval '1 hour' WHERE job_id = $1",
        job_id,
        uuid4(),
    )
    await run_job(engine, society.tenant_id, job_id)
    assert await count_rows(owner, cycle_id) == 0
    await owner.execute("UPDATE batch_job_shards SET lease_expires_at = now() WHERE job_id = $1", job_id)
    await run_job(engine, society.tenant_id, job_id)
    await assert_whole(owner, society, cycle_id)
    assert len(await log_of(owner, cycle_id, "lease_expired")) == 1


async def test_a_shard_locked_by_a_batch_is_passed_over_though_its_lease_ran_out(
    engine: Engine, owner: asyncpg.Connection, settings: Settings
) -> None:
    society, cycle_id, job_id = await ready(engine, owner, 100)
    inside = await asyncpg.connect(settings.admin_database_url)
    async with inside.transaction():
        await inside.execute(
            "UPDATE batch_job_shards SET lease_token = $2, lease_expires_at = now() - interval '1 s' WHERE job_id = $1",
            job_id,
            uuid4(),
        )
        async with asyncio.timeout(30):  # it neither waits nor runs
            await run_job(engine, society.tenant_id, job_id)
        assert await count_rows(owner, cycle_id) == 0
    await inside.close()
    await run_job(engine, society.tenant_id, job_id)
    await assert_whole(owner, society, cycle_id)


async def test_a_slice_that_ends_gives_the_lease_back_and_rings(engine: Engine, owner: asyncpg.Connection) -> None:
    society, cycle_id, job_id = await ready(engine, owner, 300)
    await engine.bell._redis.delete(engine.settings.queue_name)
    runner = tuned(engine, batch_rows=100, slice_seconds=0.0)
    for batches in (1, 2):
        await run_job(runner, society.tenant_id, job_id)
        (shard,) = await shards_of(owner, cycle_id)
        assert (shard["processed"], shard["lease_token"], shard["attempts"]) == (100 * batches, None, 0)
        assert await engine.bell.depth() == batches
    await run_job(runner, society.tenant_id, job_id)
    await assert_whole(owner, society, cycle_id)


async def test_while_redis_is_away_a_slice_goes_on_alone(settings: Settings, owner: asyncpg.Connection) -> None:
    nowhere = settings.model_copy(
        update={"redis_url": "redis://127.0.0.1:1/0", "batch_rows": 50, "slice_seconds": 0.0, "shard_rows": 100}
    )
    database = await Database.connect(nowhere)
    lonely = build_engine(nowhere, database, connect_redis(nowhere))
    society, cycle_id, job_id = await ready(lonely, owner, 400)
    await run_job(lonely, society.tenant_id, job_id)
    await lonely.progress.close()
    await database.close()
    await assert_whole(owner, society, cycle_id)


async def test_a_stopping_worker_gives_the_lease_back_after_the_batch_in_hand(
    engine: Engine, owner: asyncpg.Connection
) -> None:
    society, cycle_id, job_id = await ready(engine, owner, 300)
    runner = tuned(engine, batch_rows=100)

    class Stopping(CreateContributions):
        async def run_batch(self, tx: Transaction, job: Job, cursor: str, bound: str) -> int:
            runner.stopping.set()
            return await super().run_batch(tx, job, cursor, bound)

    runner = replace(runner, kinds={**engine.kinds, "create_contributions": Stopping()})
    await engine.bell._redis.delete(engine.settings.queue_name)
    await run_job(runner, society.tenant_id, job_id)
    (shard,) = await shards_of(owner, cycle_id)
    assert (shard["processed"], shard["lease_token"]) == (100, None)
    assert await engine.bell.pending() == {str(job_id)}


async def test_a_ring_that_a_stopping_worker_heard_is_passed_on(engine: Engine, owner: asyncpg.Connection) -> None:
    society, _, job_id = await ready(engine, owner, 10)
    await engine.bell._redis.delete(engine.settings.queue_name)
    runner = tuned(engine)
    runner.stopping.set()
    await run_job(runner, society.tenant_id, job_id)
    assert await engine.bell.pending() == {str(job_id)}


@pytest.mark.parametrize(("members", "batches"), [(0, 0), (1, 1), (99, 1), (100, 1), (101, 2), (200, 2), (201, 3)])
async def test_any_number_of_members(engine: Engine, owner: asyncpg.Connection, members: int, batches: int) -> None:
    society, cycle_id, job_id = await ready(engine, owner, members)

    class Counting(CreateContributions):
        batches = 0

        async def run_batch(self, tx: Transaction, job: Job, cursor: str, bound: str) -> int:
            self.batches += 1
            return await super().run_batch(tx, job, cursor, bound)

    kind = Counting()
    runner = replace(tuned(engine, batch_rows=100), kinds={**engine.kinds, kind.name: kind})
    await run_job(runner, society.tenant_id, job_id)
    await assert_whole(owner, society, cycle_id)
    assert kind.batches == batches
    assert (await job_of(owner, cycle_id))["total"] == members


@pytest.mark.parametrize(
    ("members", "shard_rows", "shards"),
    [(399, 200, 1), (400, 200, 2), (1_000, 200, 5), (1_001, 200, 5), (5_000, 200, 8), (7, 1, 7), (1, 1, 1)],
)
async def test_the_plan_cuts_the_keys_without_gap_or_overlap(
    engine: Engine, owner: asyncpg.Connection, members: int, shard_rows: int, shards: int
) -> None:
    society, cycle_id, job_id = await ready(engine, owner, members)
    await run_job(tuned(engine, shard_rows=shard_rows), society.tenant_id, job_id)
    await assert_whole(owner, society, cycle_id)
    cut = await shards_of(owner, cycle_id)
    assert len(cut) == shards
    assert cut[0]["lower"] is None
    assert [shard["lower"] for shard in cut[1:]] == [shard["upper"] for shard in cut[:-1]]
    sizes = [shard["processed"] for shard in cut]
    assert sum(sizes) == members
    assert max(sizes) <= 2 * min(sizes) + 1


@pytest.mark.parametrize("stray", [UUID(int=1), UUID(int=2**128 - 1)])
@pytest.mark.parametrize("members", [0, 100])
async def test_rows_that_are_not_those_planned_fail_the_job(
    engine: Engine, owner: asyncpg.Connection, members: int, stray: UUID
) -> None:
    society, cycle_id, job_id = await ready(engine, owner, members)
    await owner.execute(
        "INSERT INTO contributions (tenant_id, cycle_id, member_id, contribution_amount, due_date)"
        " VALUES ($1, $2, $3, 1, '2030-01-01')",
        society.tenant_id,
        cycle_id,
        stray,
    )
    await run_job(engine, society.tenant_id, job_id)
    job = await job_of(owner, cycle_id)
    assert job["state"] == "Failed"
    assert job["error"].startswith(PlanMismatchError.__name__)
    assert f"{members + 1} rows stand where {members} were counted" in job["error"]
    assert await cycle_status(owner, cycle_id) == "Failed"

    await owner.execute("DELETE FROM contributions WHERE member_id = $1", stray)
    await steer(engine, society, "retry", job_id)
    await run_job(engine, society.tenant_id, job_id)
    await assert_whole(owner, society, cycle_id)


async def test_a_row_that_is_there_already_shouts(engine: Engine, owner: asyncpg.Connection) -> None:
    """The primary key is the last guard against making anything twice."""
    society, cycle_id, job_id = await ready(engine, owner, 100)
    await owner.execute(
        "INSERT INTO contributions (tenant_id, cycle_id, member_id, contribution_amount, due_date)"
        " SELECT tenant_id, $2, member_id, 1, '2030-01-01' FROM tier_memberships WHERE tenant_id = $1 LIMIT 1",
        society.tenant_id,
        cycle_id,
    )
    await run_job(engine, society.tenant_id, job_id)
    job = await job_of(owner, cycle_id)
    assert job["state"] == "Failed"
    assert job["error"].startswith("UniqueViolationError")


async def test_backoff_doubles_with_a_little_jitter_and_is_kept(engine: Engine, owner: asyncpg.Connection) -> None:
    society, cycle_id, job_id = await ready(engine, owner, 100)
    runner = tuned(engine, backoff_seconds=100.0, max_attempts=4, faults="before_commit=disconnect")
    for attempt, seconds in ((1, 100), (2, 200), (3, 400)):
        before = datetime.now(UTC)
        await run_job(runner, society.tenant_id, job_id)
        (shard,) = await shards_of(owner, cycle_id)
        waits = shard["next_attempt_at"] - before
        assert timedelta(seconds=seconds) <= waits <= timedelta(seconds=seconds * 1.25 + 30)
        assert (shard["attempts"], shard["lease_token"]) == (attempt, None)
        assert InjectedConnectionError.__name__ in shard["error"]
        await run_job(engine, society.tenant_id, job_id)  # not due: nothing happens
        assert await count_rows(owner, cycle_id) == 0
        await owner.execute("UPDATE batch_job_shards SET next_attempt_at = now() WHERE job_id = $1", job_id)
    await run_job(runner, society.tenant_id, job_id)
    assert (await job_of(owner, cycle_id))["state"] == "Failed"


async def test_progress_begins_the_count_of_attempts_anew(engine: Engine, owner: asyncpg.Connection) -> None:
    society, cycle_id, job_id = await ready(engine, owner, 600)
    for _ in range(5):  # more failures than attempts, each after a batch that went well
        runner = tuned(engine, batch_rows=100, backoff_seconds=0.0, faults="before_commit=disconnect@2")
        await run_job(runner, society.tenant_id, job_id)
    assert [shard["processed"] for shard in await shards_of(owner, cycle_id)] == [500]
    await run_job(engine, society.tenant_id, job_id)
    await assert_whole(owner, society, cycle_id)


@pytest.mark.parametrize(
    "point", ["after_plan", "in_batch", "before_advance", "before_commit", "after_commit", "before_complete"]
)
async def test_a_defect_at_any_point_fails_at_once_and_a_retry_goes_on(
    engine: Engine, owner: asyncpg.Connection, point: str
) -> None:
    society, cycle_id, job_id = await ready(engine, owner, 300)
    await run_job(tuned(engine, batch_rows=100, faults=f"{point}=error"), society.tenant_id, job_id)
    job = await job_of(owner, cycle_id)
    assert job["state"] == "Failed"
    assert job["error"].startswith(InjectedError.__name__)
    await steer(engine, society, "retry", job_id)
    await run_job(engine, society.tenant_id, job_id)
    await assert_whole(owner, society, cycle_id)


async def test_a_job_of_one_batch_is_made_whole_or_not_at_all(engine: Engine, owner: asyncpg.Connection) -> None:
    """Plan, batch and end share one transaction: whatever breaks it off, not even the plan stays."""
    society, cycle_id, job_id = await ready(engine, owner, 300)
    for point in ("in_batch", "before_advance", "before_complete", "before_commit"):
        runner = tuned(engine, backoff_seconds=0.0, max_attempts=9, faults=f"{point}=disconnect")
        await run_job(runner, society.tenant_id, job_id)
        assert await count_rows(owner, cycle_id) == 0
        job = await job_of(owner, cycle_id)
        assert (job["state"], job["total"]) == ("Processing", None)
    await run_job(engine, society.tenant_id, job_id)
    await assert_whole(owner, society, cycle_id)


async def test_inline_is_all_or_nothing(engine: Engine, owner: asyncpg.Connection) -> None:
    society = await make_society(owner, members=300)
    for point in ("in_batch", "before_advance", "before_complete"):
        with pytest.raises(InjectedError):
            await start(tuned(engine, batch_rows=100, faults=f"{point}=error"), society, "inline")
    for table in ("contribution_cycles", "contributions", "batch_jobs", "batch_job_shards", "counters"):
        assert await owner.fetchval(f"SELECT count(*) FROM {table}") == 0, table
    assert not await owner.fetchval("SELECT count(*) FROM events WHERE aggregate_type = 'contribution_cycle'")
    assert await engine.bell.depth() == 0  # nobody was told of what did not happen
    cycle_id = await start(tuned(engine, batch_rows=100), society, "inline")
    await assert_whole(owner, society, cycle_id)
    (shard,) = await shards_of(owner, cycle_id)
    assert (shard["processed"], shard["done"], shard["lease_token"]) == (300, True, None)


@pytest.mark.parametrize(("members", "status"), [(49, "Active"), (50, "Initializing")])
async def test_auto_is_inline_below_the_line(
    engine: Engine, owner: asyncpg.Connection, members: int, status: str
) -> None:
    society = await make_society(owner, members=members)
    cycle_id = await start(tuned(engine, inline_below=50), society, "auto")
    assert await cycle_status(owner, cycle_id) == status


async def test_a_contributions_id_is_the_members_in_the_cycles_namespace(
    engine: Engine, owner: asyncpg.Connection, society: Society
) -> None:
    cycle_id = await start(engine, society, "inline")
    rows = await owner.fetch("SELECT contribution_id, member_id FROM contributions WHERE cycle_id = $1", cycle_id)
    for row in rows:
        digest = md5(cycle_id.bytes + row["member_id"].bytes, usedforsecurity=False).digest()
        assert row["contribution_id"] == UUID(bytes=digest, version=3)
        assert row["contribution_id"].version == 3
    assert len({row["contribution_id"] for row in rows}) == society.members


async def test_rows_carry_the_cycles_amount_and_deadline(engine: Engine, owner: asyncpg.Connection) -> None:
    society = await make_society(owner, members=10)
    async with engine.database.transaction(society.tenant_id) as tx:
        new = NewCycle(society.tier_id, society.dead, contribution_amount=Decimal("250.75"), duration_days=30)
        cycle, _ = await start_cycle(engine, tx, new, society.user_id, strategy="inline")
    rows = await owner.fetch("SELECT DISTINCT contribution_amount, due_date, contribution_status FROM contributions")
    assert [tuple(row) for row in rows] == [(Decimal("250.75"), cycle["deadline"], "Pending")]
    assert cycle["deadline"] == cycle["start_date"] + timedelta(days=30)
    assert await owner.fetchval("SELECT count(*) FROM contributions WHERE member_id = $1", society.dead) == 0


async def test_a_living_deceased_starts_nothing(engine: Engine, owner: asyncpg.Connection, society: Society) -> None:
    alive = await owner.fetchval("SELECT member_id FROM members WHERE status = 'Active' LIMIT 1")
    with pytest.raises(InvalidInputError):
        await start(engine, replace(society, dead=alive))
    assert await owner.fetchval("SELECT count(*) FROM counters") == 0


async def test_what_follows_is_started_with_the_completion_or_not_at_all(
    engine: Engine, owner: asyncpg.Connection
) -> None:
    society, cycle_id, job_id = await ready(engine, owner, 10)

    class Overeager(CreateContributions):
        async def on_completed(self, tx: Transaction, job: Job, processed: int) -> Sequence[NewJob]:
            await super().on_completed(tx, job, processed)
            raise InjectedError("after all")

    broken = replace(engine, kinds={**engine.kinds, "create_contributions": Overeager()})
    await run_job(broken, society.tenant_id, job_id)
    assert await job_of(owner, cycle_id, "notify_agents_new_cycle") is None
    assert await cycle_status(owner, cycle_id) == "Failed"
    await steer(engine, society, "retry", job_id)
    await run_job(engine, society.tenant_id, job_id)
    assert (await job_of(owner, cycle_id, "notify_agents_new_cycle"))["state"] == "Queued"


async def test_a_kind_whose_on_failed_is_broken_does_not_keep_its_job_from_failing(
    engine: Engine, owner: asyncpg.Connection
) -> None:
    """Else it would go from lease to lease, for ever: the failure could never be written."""
    society, cycle_id, job_id = await ready(engine, owner, 100)

    class Broken(CreateContributions):
        async def on_failed(self, tx: Transaction, job: Job, reason: str) -> None:
            await super().on_failed(tx, job, reason)
            await tx.connection.execute("SELECT 1 / 0")

    broken = replace(tuned(engine, faults="before_advance=error"), kinds={"create_contributions": Broken()})
    await run_job(broken, society.tenant_id, job_id)
    job, (shard,) = await job_of(owner, cycle_id), await shards_of(owner, cycle_id)
    assert (job["state"], shard["lease_token"]) == ("Failed", None)
    assert job["error"].startswith(InjectedError.__name__)
    (told,) = await log_of(owner, cycle_id, "on_failed_raised")
    assert "division by zero" in told["fields"]
    assert await cycle_status(owner, cycle_id) == "Initializing"  # what it did is undone: doctor tells

    await steer(engine, society, "retry", job_id)
    await run_job(engine, society.tenant_id, job_id)
    await assert_whole(owner, society, cycle_id)


async def test_an_unknown_job_is_no_fault(engine: Engine, society: Society) -> None:
    await run_job(engine, society.tenant_id, uuid4())
    await run_job(engine, uuid4(), uuid4())


async def test_the_server_frees_what_a_client_that_hangs_in_a_statement_holds(
    engine: Engine, owner: asyncpg.Connection, society: Society
) -> None:
    """Frozen between the messages of one statement, a session is not idle: only this limit ends it."""
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        async with engine.database.transaction(society.tenant_id, longest=0.2) as tx:
            await sql.lock_tier_exclusive(tx.connection, tier_id=society.tier_id)
            await tx.connection.execute("SELECT pg_sleep(60)")

    async def free() -> bool:
        locks: int = await owner.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
        return locks == 0

    await eventually(free)
