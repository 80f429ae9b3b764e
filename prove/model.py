"""A random history of everything that can happen to a society, held against a plain model after each step.

Officers start, pause, resume, cancel and retry over the API; members come, go, move and die; workers take rings,
are held between two batches, stop, die at any call; the clock jumps, sessions are cut, Redis is flushed, keys are
forgotten. PostgreSQL and Valkey are real; processes are actors of this one, so that a history is repeated exactly.

A history that fails is shrunk and printed as the calls that make it: keep those in `tests/prove/test_histories.py`.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, ClassVar
from uuid import UUID

import httpx
import hypothesis
from fastapi import FastAPI
from hypothesis import HealthCheck
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from api.app import create_app
from core.calls import intercept
from db.queries import sql
from db.retriable import is_retriable
from domain.replay import Replayed, replay
from jobs.engine.bell import connect_redis
from jobs.engine.engine import Engine
from jobs.engine.model import TERMINAL, JobState
from jobs.engine.progress import ProgressBoard
from jobs.engine.runner import run_job
from jobs.engine.sweep import sweep
from jobs.invariants import AUDIT, INVARIANTS, broken_in_tenant
from jobs.maintenance.relay_events import relay_events
from prove.actors import Actor, Death, gate
from prove.report import Options, Outcome
from prove.world import Place, World, wrong_contributions, wrong_notifications
from tests.support import make_society

CYCLES = "/api/contribution-cycles"
MEMBERS, AGENTS, MOST_CYCLES, MOST_WORKERS, MOST_CALLS = 24, 3, 6, 3, 30
LEASE_SECONDS, INLINE_BELOW = 100, 10
SETTINGS = {
    "batch_rows": 5,
    "shard_rows": 8,
    "inline_below": INLINE_BELOW,
    "lease_seconds": float(LEASE_SECONDS),
    "backoff_seconds": float(LEASE_SECONDS),
    "max_attempts": 2,
    "rate_limit": "",
}
"""Small steps; and no lease or backoff ends by itself: the clock jumps when a history says so."""
JUMP_SECONDS = 10 * LEASE_SECONDS
LONGEST_SETTLING = 40

INDEX = st.integers(0, 11)
CALLS = st.integers(0, MOST_CALLS)
WORKER_ARROWS = {
    (JobState.QUEUED, JobState.PROCESSING),
    (JobState.QUEUED, JobState.COMPLETED),
    (JobState.PROCESSING, JobState.COMPLETED),
    (JobState.QUEUED, JobState.FAILED),
    (JobState.PROCESSING, JobState.FAILED),
}
"""What a job may become by the work on it; everything else needs an officer."""
STEERING: Mapping[str, tuple[frozenset[JobState], JobState]] = {
    "pause": (frozenset({JobState.QUEUED, JobState.PROCESSING}), JobState.PAUSED),
    "resume": (frozenset({JobState.PAUSED}), JobState.QUEUED),
    "retry": (frozenset({JobState.FAILED}), JobState.QUEUED),
    "cancel": (
        frozenset({JobState.QUEUED, JobState.PROCESSING, JobState.PAUSED, JobState.FAILED}),
        JobState.CANCELLED,
    ),
}
MEMBER_ARROWS = {("Active", "Inactive"), ("Inactive", "Active"), ("Active", "Deceased"), ("Inactive", "Deceased")}
CYCLE_OF_JOB = {
    JobState.QUEUED: "Initializing",
    JobState.PROCESSING: "Initializing",
    JobState.PAUSED: "Initializing",
    JobState.COMPLETED: "Active",
    JobState.FAILED: "Failed",
    JobState.CANCELLED: "Cancelled",
}


@dataclass
class ModelMember:
    member_id: UUID
    status: str
    tier: str
    version: int = 1


@dataclass
class ModelJob:
    """`faults`: what was done to it that may count as an attempt."""

    job_id: UUID
    kind: str
    state: JobState = JobState.QUEUED
    faults: int = 0


@dataclass
class ModelCycle:
    """`owing` was fixed when it started; `rows` are the members with a contribution, as seen last."""

    cycle_id: UUID
    owing: frozenset[UUID]
    jobs: dict[str, ModelJob]
    rows: frozenset[UUID] = frozenset()

    @property
    def job(self) -> ModelJob:
        return self.jobs["create_contributions"]


@dataclass
class Worker:
    """A process that answers one ring."""

    actor: Actor
    engine: Engine
    job_id: UUID


@dataclass
class Model:
    members: list[ModelMember] = field(default_factory=list)
    cycles: list[ModelCycle] = field(default_factory=list)
    keys: dict[int, tuple[dict[str, Any], ModelCycle, int]] = field(default_factory=dict)
    """What each Idempotency-Key was sent with, what it made, and the answer's status."""
    worked_on: set[UUID] = field(default_factory=set)
    """Jobs on which a worker did something since the last look."""

    def owing(self, tier: str, dead: ModelMember) -> frozenset[UUID]:
        return frozenset(m.member_id for m in self.members if m.status == "Active" and m.tier == tier and m is not dead)

    def jobs(self) -> list[ModelJob]:
        return [job for cycle in self.cycles for job in cycle.jobs.values()]


@dataclass(frozen=True)
class Ground:
    """What all histories share; each has a society of its own on it."""

    world: World
    place: Place
    app: FastAPI
    runner: asyncio.Runner

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, runner: asyncio.Runner) -> AsyncIterator["Ground"]:
        async with World.open(MEMBERS, AGENTS) as world, world.place(**SETTINGS) as place:
            app = create_app(place.settings)
            async with app.router.lifespan_context(app):
                intercept(gate)
                try:
                    yield cls(world, place, app, runner)
                finally:
                    intercept(None)


class History(RuleBasedStateMachine):
    """One history. `histories` gives it the ground."""

    ground: ClassVar[Ground]
    changes: ClassVar[Callable[[Engine], Engine]] = staticmethod(lambda engine: engine)
    """What a test does to the workers' engine, to see that it is seen."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.looks = 0
        self.workers: list[Worker] = []
        self.stack = contextlib.AsyncExitStack()
        try:
            self.do(self._open())
        except BaseException:
            self.do(self.stack.aclose())
            raise

    def do(self, work: Any) -> Any:
        return self.ground.runner.run(work)

    async def _open(self) -> None:
        place = self.ground.place
        self.settings, self.owner = place.settings, place.owner
        self.engine: Engine = self.ground.app.state.engine
        self.society = await make_society(self.owner, MEMBERS, agents=AGENTS)
        self.redis = connect_redis(self.settings)
        self.stack.push_async_callback(self.redis.aclose, close_connection_pool=True)
        await self.redis.flushall()
        self.client = await self.stack.enter_async_context(
            httpx.AsyncClient(
                transport=httpx.ASGITransport(self.ground.app),
                base_url="http://api",
                headers={"Authorization": f"Bearer {self.society.api_key}"},
            )
        )
        await self._make_tiers()

    async def _make_tiers(self) -> None:
        """Tier A has the members; B gets two of them, and its own dead, so that its cycles are small."""
        body = {"code": "B", "name": "Tier B", "contributionAmount": "50", "benefitAmount": "1000"}
        tier_b = (await self.ask("POST", "/api/tiers", json=body)).json()["tierId"]
        self.tiers = {"A": str(self.society.tier_id), "B": tier_b}
        rows = await self.owner.fetch(
            "SELECT member_id, status, version FROM members WHERE tenant_id = $1 ORDER BY member_id",
            self.society.tenant_id,
        )
        self.model.members = [ModelMember(row["member_id"], row["status"], "A", row["version"]) for row in rows]
        for member in [m for m in self.model.members if m.status == "Active"][:3]:
            await self._change(member, tier="B")
        await self._change(next(m for m in self.model.members if m.tier == "B"), status="Deceased")

    # --- what officers do

    @initialize(dead=INDEX)
    def begin(self, dead: int) -> None:
        """There is something to work on."""
        self.start(0, dead, "queued")

    @precondition(lambda self: len(self.model.cycles) < MOST_CYCLES)
    @rule(key=INDEX, dead=INDEX, strategy=st.sampled_from(("queued", "auto", "inline")))
    def start(self, key: int, dead: int, strategy: str) -> None:
        self.do(self._start(key, dead, strategy, None))

    @precondition(lambda self: len(self.model.cycles) < MOST_CYCLES)
    @rule(key=INDEX, dead=INDEX, strategy=st.sampled_from(("queued", "inline")), calls=CALLS, after=st.booleans())
    def start_while_the_api_dies(self, key: int, dead: int, strategy: str, calls: int, after: bool) -> None:
        """The officer, without an answer, asks again."""
        self.do(self._start(key, dead, strategy, Death(calls, after)))

    async def _start(self, key: int, which: int, strategy: str, death: Death | None) -> None:
        dead = _nth([m for m in self.model.members if m.status == "Deceased"], which)
        body = {"tierId": self.tiers[dead.tier], "deceasedMemberId": str(dead.member_id), "strategy": strategy}
        headers = {"Idempotency-Key": f"key-{key}"}
        if death is not None:
            await self._die_asking("POST", CYCLES, death, json=body, headers=headers)
        answer = await self.ask("POST", CYCLES, json=body, headers=headers)
        if key in self.model.keys:
            sent, cycle, status = self.model.keys[key]
            if sent != body:
                assert answer.json()["code"] == "IDEMPOTENCY_KEY_REUSED", answer.text
            else:
                assert (answer.status_code, answer.json()["cycleId"]) == (status, str(cycle.cycle_id)), answer.text
                assert answer.headers["Idempotent-Replayed"] == "true"
            return
        owing = self.model.owing(dead.tier, dead)
        inline = strategy == "inline" or (strategy == "auto" and len(owing) < INLINE_BELOW)
        assert answer.status_code == (201 if inline else 202), answer.text
        told = answer.json()
        job = ModelJob(UUID(told["jobId"]), "create_contributions")
        cycle = ModelCycle(UUID(told["cycleId"]), owing, {job.kind: job})
        if inline:
            job.state, cycle.rows = JobState.COMPLETED, owing
        assert told["cycleStatus"] == CYCLE_OF_JOB[job.state]
        self.model.cycles.append(cycle)
        self.model.keys[key] = (body, cycle, answer.status_code)

    @precondition(lambda self: self.model.cycles)
    @rule(which=INDEX, verb=st.sampled_from(tuple(STEERING)))
    def steer(self, which: int, verb: str) -> None:
        self.do(self._steer(_nth(self.model.jobs(), which), verb))

    async def _steer(self, job: ModelJob, verb: str) -> None:
        answer = await self.ask("POST", f"/api/jobs/{job.job_id}/{verb}")
        origins, target = STEERING[verb]
        if job.state not in origins or (verb == "cancel" and job.kind == "remove_contributions"):
            assert answer.json()["code"] == "INVALID_STATUS_TRANSITION", answer.text
            assert answer.json()["context"] == {"current": job.state, "wanted": target}
            return
        assert (answer.status_code, answer.json()["state"]) == (200, target), answer.text
        job.state = target
        if verb == "retry":
            job.faults = 0

    # --- what members do

    @rule(which=st.integers(0, MEMBERS), does=st.sampled_from(("join", "leave", "return", "die", "to A", "to B")))
    def member(self, which: int, does: str) -> None:
        member = _nth(self.model.members, which)
        status = {"leave": "Inactive", "return": "Active", "die": "Deceased"}.get(does)
        if does == "join":
            self.do(self._join("AB"[which % 2]))
        elif status and (member.status, status) in MEMBER_ARROWS:
            self.do(self._change(member, status=status))
        elif not status and member.status != "Deceased":
            self.do(self._change(member, tier=does[-1]))

    async def _join(self, tier: str) -> None:
        body = {"fullName": "New", "gender": "O", "tierId": self.tiers[tier]}
        headers = {"Idempotency-Key": f"join-{len(self.model.members)}"}
        member = (await self.ask("POST", "/api/members", json=body, headers=headers)).json()
        for step in ("review", "approve", "activate"):
            path = f"/api/members/{member['memberId']}/{step}"
            member = (await self.ask("POST", path, json={"version": member["version"]})).json()
        self.model.members.append(ModelMember(UUID(member["memberId"]), "Active", tier, member["version"]))

    async def _change(self, member: ModelMember, **changes: str) -> None:
        body: dict[str, Any] = {"version": member.version}
        body |= {"tierId": self.tiers[changes["tier"]]} if "tier" in changes else changes
        answer = await self.ask("PATCH", f"/api/members/{member.member_id}", json=body)
        assert answer.status_code == 200, answer.text
        member.version = answer.json()["version"]
        for name, value in changes.items():
            setattr(member, name, value)

    # --- what workers do

    @precondition(lambda self: len(self.workers) < MOST_WORKERS)
    @rule(first=st.sampled_from(("", "sweep", "jump and sweep")), steps=st.integers(0, 5))
    def answer_a_ring(self, first: str, steps: int) -> None:
        if "jump" in first:
            self.do(self._jump())
        if "sweep" in first:
            self.do(self._sweep())
        self.do(self._answer(steps))

    async def _answer(self, steps: int) -> bool:
        """False when nothing rings for this society."""
        mine = {job.job_id for job in self.model.jobs()}
        rings = await self.redis.zrange(self.settings.queue_name, 0, -1)
        ring = next((ring for ring in rings if UUID(ring.decode().split(":")[0]) in mine), None)
        if ring is None:
            return False
        await self.redis.zrem(self.settings.queue_name, ring)
        job_id = UUID(ring.decode().split(":")[0])
        board = ProgressBoard(self.redis, self.settings)  # each process has its own
        engine = type(self).changes(replace(self.engine, progress=board, stopping=asyncio.Event()))
        worker = Worker(Actor(held=True), engine, job_id)
        worker.actor.start(run_job(engine, self.society.tenant_id, job_id))
        self.workers.append(worker)
        await worker.actor.rest()
        await self._let(worker, steps)
        return True

    @precondition(lambda self: self.workers)
    @rule(which=INDEX, steps=st.integers(1, 4))
    def work(self, which: int, steps: int) -> None:
        self.do(self._let(_nth(self.workers, which), steps))

    @precondition(lambda self: self.workers)
    @rule(which=INDEX)
    def stop(self, which: int) -> None:
        """SIGTERM: the batch in hand, and no more."""
        worker = _nth(self.workers, which)
        worker.engine.stopping.set()
        self.do(self._let(worker, 1_000))

    @precondition(lambda self: self.workers)
    @rule(which=INDEX, calls=st.none() | CALLS, after=st.booleans())
    def kill(self, which: int, calls: int | None, after: bool) -> None:
        """SIGKILL: between two transactions, or at some call from here on."""
        worker = _nth(self.workers, which)
        self._blame(worker.job_id)
        self.do(self._let(worker, 0, dies=True) if calls is None else self._let(worker, 1_000, Death(calls, after)))

    async def _let(self, worker: Worker, steps: int, death: Death | None = None, *, dies: bool = False) -> None:
        """Let a worker go on for some transactions; when it has ended or died, it is gone."""
        self.model.worked_on.add(worker.job_id)
        for n in range(steps):
            if worker.actor.is_done:
                break
            await worker.actor.step(death if n == 0 else None)
        if dies and not worker.actor.is_done:
            await worker.actor.die()
        if worker.actor.is_done:
            worker.actor.result()
            await worker.engine.progress.close()
            self.workers.remove(worker)

    # --- what happens to all of them

    @rule(what=st.sampled_from(("time passes", "Redis is flushed", "sessions are cut", "keys are forgotten")))
    def all_of_them(self, what: str) -> None:
        match what:
            case "time passes":
                self.do(self._jump())
            case "Redis is flushed":
                self.do(self.redis.flushall())
            case "sessions are cut":
                self.do(self._cut())
            case "keys are forgotten":
                self.do(self._forget())

    async def _jump(self) -> None:
        """Leases run out and backoffs are over. What passes is the same for every row."""
        await self.owner.execute(
            "UPDATE batch_job_shards SET lease_expires_at = lease_expires_at - make_interval(secs => $1),"
            " next_attempt_at = next_attempt_at - make_interval(secs => $1) WHERE tenant_id = $2",
            float(JUMP_SECONDS),
            self.society.tenant_id,
        )
        for worker in self.workers:
            self._blame(worker.job_id)

    async def _sweep(self) -> None:
        await _until_it_works(lambda: sweep(self.engine))
        rung = await self.engine.bell.pending()
        due = await self.owner.fetch(
            "SELECT DISTINCT job_id::text FROM batch_jobs JOIN batch_job_shards USING (tenant_id, job_id)"
            " WHERE tenant_id = $1 AND state IN ('Queued', 'Processing') AND NOT done AND lease_token IS NULL"
            " AND coalesce(next_attempt_at, '-infinity') < clock_timestamp() AND NOT EXISTS ("
            "SELECT FROM batch_job_shards AS s WHERE s.job_id = batch_jobs.job_id AND s.lease_token IS NOT NULL)",
            self.society.tenant_id,
        )
        assert {row["job_id"] for row in due} <= rung, "a job that nobody runs was not rung for"

    async def _cut(self) -> None:
        """Whoever uses one of them next may find out only then, and count it as an attempt."""
        for job in self.model.jobs():
            job.faults += 1
        await self.ground.world.superuser(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            f" WHERE usename = 'guthi_app' AND datname = '{await self.owner.fetchval('SELECT current_database()')}'"
        )

    async def _forget(self) -> None:
        """As maintenance does it for every society."""
        aged = "UPDATE idempotency_keys SET created_at = created_at - interval '25 hours' WHERE tenant_id = $1"
        await self.owner.execute(aged, self.society.tenant_id)
        await _until_it_works(self._purge)
        self.model.keys.clear()

    async def _purge(self) -> None:
        keep = timedelta(hours=self.settings.idempotency_hours)
        async with self.engine.database.transaction(self.society.tenant_id) as tx:
            await sql.purge_idempotency_keys(tx.connection, tenant_id=tx.tenant_id, keep=keep)

    # --- what must be true after each of these

    @invariant()
    def holds(self) -> None:
        self.do(self._holds())

    async def _holds(self) -> None:
        tenant_id, board = self.society.tenant_id, self.engine.progress
        found = await broken_in_tenant(self.owner, tenant_id, board=board)
        assert found == [], found
        jobs = await self.owner.fetch("SELECT * FROM batch_jobs WHERE tenant_id = $1", self.society.tenant_id)
        for cycle in self.model.cycles:
            mine = {row["kind"]: row for row in jobs if row["subject_id"] == cycle.cycle_id}
            self._follow_ups(cycle, mine)
            for kind, job in cycle.jobs.items():
                self._look_at_job(job, mine[kind])
            await self._look_at_rows(cycle)
        if self.model.cycles:
            await self._look_at_answers(_nth(self.model.cycles, self.looks))
        self.looks += 1
        assert len({row["subject_id"] for row in jobs}) == len(self.model.cycles), "a cycle nobody has asked for"
        self.model.worked_on.clear()

    def _follow_ups(self, cycle: ModelCycle, jobs: Mapping[str, Any]) -> None:
        """One job each, and only once it is called for."""
        if cycle.job.state is JobState.CANCELLED or jobs["create_contributions"]["state"] == JobState.COMPLETED:
            kind = "remove_contributions" if cycle.job.state is JobState.CANCELLED else "notify_agents_new_cycle"
            cycle.jobs.setdefault(kind, ModelJob(jobs[kind]["job_id"], kind))
        assert set(jobs) == set(cycle.jobs)

    def _look_at_job(self, job: ModelJob, row: Any) -> None:
        was, job.state = job.state, JobState(row["state"])
        if job.state is was:
            return
        assert (was, job.state) in WORKER_ARROWS, f"a {job.kind} job that was {was} is {job.state}"
        assert job.job_id in self.model.worked_on, f"a {job.kind} job became {job.state} while nobody worked on it"
        if job.state is JobState.FAILED:
            assert job.faults >= self.settings.max_attempts, f"failed for little: {row['error']}"

    async def _look_at_rows(self, cycle: ModelCycle) -> None:
        stand = await self.owner.fetch("SELECT member_id FROM contributions WHERE cycle_id = $1", cycle.cycle_id)
        rows = frozenset(row["member_id"] for row in stand)
        assert rows <= cycle.owing, "somebody has a contribution and does not owe"
        gone, come = cycle.rows - rows, rows - cycle.rows
        by = {job.kind for job in cycle.jobs.values() if job.job_id in self.model.worked_on}
        assert not gone or (cycle.job.state is JobState.CANCELLED and "remove_contributions" in by), "rows are gone"
        assert not come or "create_contributions" in by, "rows have come by themselves"
        assert not come or cycle.job.state not in {JobState.PAUSED, JobState.CANCELLED}, f"rows came while {cycle.job}"
        if cycle.job.state is JobState.COMPLETED:
            assert rows == cycle.owing
        cycle.rows = rows

    async def _look_at_answers(self, cycle: ModelCycle) -> None:
        told = (await self.ask("GET", f"{CYCLES}/{cycle.cycle_id}")).json()
        assert told["cycleStatus"] == CYCLE_OF_JOB[cycle.job.state]
        progress = (await self.ask("GET", f"{CYCLES}/{cycle.cycle_id}/creation-progress")).json()
        assert progress["progress"]["processed"] <= len(cycle.owing)

    # --- the end

    def teardown(self) -> None:
        try:
            self.do(self._end())
        finally:
            self.do(self._close())

    async def _close(self) -> None:
        for worker in list(self.workers):
            await worker.actor.die()
            worker.actor.result()
        await self.stack.aclose()

    async def _end(self) -> None:
        """Peace: everything that was taken up comes to its end, and every row is as it must be."""
        for _ in range(LONGEST_SETTLING):
            for worker in list(self.workers):
                await self._let(worker, 1_000)
            for job in self.model.jobs():
                if job.state is JobState.PAUSED:
                    await self._steer(job, "resume")
                if job.state is JobState.FAILED:
                    await self._steer(job, "retry")
            await self._jump()
            await self._sweep()
            while await self._answer(1_000):
                pass
            await self._holds()
            if all(job.state in TERMINAL - {JobState.FAILED} for job in self.model.jobs()):
                break
        else:
            raise AssertionError(f"it never came to an end: {self.model.jobs()}")
        await _until_it_works(lambda: relay_events(self.engine))
        tenant_id, board = self.society.tenant_id, self.engine.progress
        wrong = await broken_in_tenant(self.owner, tenant_id, (*INVARIANTS, AUDIT), board)
        found = [f"{one.invariant}: {one.subject}: {one.detail}" for one in wrong]
        found += [str(each) async for each in replay(self.owner, self.society.tenant_id, Replayed())]
        for cycle in self.model.cycles:
            kept = set(cycle.owing) if cycle.job.state is JobState.COMPLETED else set()
            found += await wrong_contributions(self.owner, cycle.cycle_id, kept)
            told = cycle.jobs.get("notify_agents_new_cycle")
            if told is None or told.state is JobState.COMPLETED:
                found += await wrong_notifications(self.owner, cycle.cycle_id, kept)
        assert found == [], found

    # --- how officers ask

    async def ask(self, method: str, path: str, **what: Any) -> httpx.Response:
        """Again while the API has only sessions that were cut: it says so before it has done anything."""
        while (answer := await self.client.request(method, path, **what)).status_code == 503:
            pass
        return answer

    async def _die_asking(self, method: str, path: str, death: Death, **what: Any) -> None:
        actor = Actor(held=False, death=death)
        actor.start(self.client.request(method, path, **what))
        await actor.finish()
        actor.result()

    def _blame(self, job_id: UUID) -> None:
        for job in self.model.jobs():
            job.faults += job.job_id == job_id


def _nth(things: Any, which: int) -> Any:
    return things[which % len(things)]


async def _until_it_works(act: Callable[[], Awaitable[object]]) -> None:
    """As cron has it: a run that fails for a session that was cut is followed by the next."""
    while True:
        try:
            await act()
            return
        except Exception as error:
            if not is_retriable(error):
                raise


def histories(
    *, examples: int, steps: int, seed: int | None = None, machine: type[History] = History, shrink: bool = True
) -> None:
    """Run so many histories; raises what the first bad one, shrunk, came to. `seed=None`: always the same ones."""
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        try:
            machine.ground = runner.run(stack.enter_async_context(Ground.open(runner)))
            if seed is not None:
                machine = hypothesis.seed(seed)(machine)
            phases = [hypothesis.Phase.generate, *([hypothesis.Phase.shrink] if shrink else [])]
            run_state_machine_as_test(
                machine,
                settings=hypothesis.settings(
                    max_examples=examples,
                    stateful_step_count=steps,
                    derandomize=seed is None,
                    database=None,
                    deadline=None,
                    phases=phases,
                    suppress_health_check=list(HealthCheck),
                    print_blob=False,
                ),
            )
        finally:
            runner.run(stack.aclose())


async def prove(options: Options) -> Outcome:
    """Some histories; many more and longer ones with `--long`."""
    examples, steps = (2_000, 60) if options.long else (60, 40)
    failures = []
    try:
        await asyncio.to_thread(histories, examples=examples, steps=steps, seed=options.seed)
    except Exception as error:
        failures.append("\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())]))
    return Outcome(f"{examples:,} histories of up to {steps} steps", failures)
