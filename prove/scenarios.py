"""What is done to the system while it is broken, and what must be there in the end.

A scenario's script is what its client does: ask, ask again until an answer comes, go on. Run from its start once
more, by another client who knows nothing but the keys it used, it does nothing twice: that is how a script goes on
after its whole process was killed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any
from uuid import UUID

import asyncpg
import httpx

from domain.cycles import Cycle
from jobs.engine.bell import connect_redis
from jobs.engine.progress import ProgressBoard
from prove.injection import Watch
from prove.node import Node
from prove.world import Place, broken, flush_redis, found, members_who_owe, wrong_contributions, wrong_notifications

PATIENCE_SECONDS = 60
"""By then everything has recovered, or never will."""
STALL, STALL_LEASE_SECONDS = 0.6, 4.0
"""How much of a lease, and of one so long that another node can come to the end meanwhile."""
SWEEP_SECONDS = 0.4
"""As the cron table would; a run without faults needs no sweep, and is mostly done by then."""
WAITED = "waited in vain:"
CYCLES = "/api/contribution-cycles"


class NotRecoveredError(Exception):
    """What should have become true by itself did not."""


class Run:
    """One client at one system: it asks the node that is there, and the next one when that stands still."""

    def __init__(self, place: Place, watch: Watch, node: Node) -> None:
        self.place, self.owner, self.watch, self.node = place, place.owner, watch, node
        self._first_watch = watch
        self._redis = connect_redis(place.settings)
        self._board = ProgressBoard(self._redis, place.settings)
        self.answers: dict[str, Any] = {}
        self._requests: dict[str, tuple[str, dict[str, Any]]] = {}
        self.patience = PATIENCE_SECONDS
        self.begun_at = monotonic()
        self.seen: list[str] | None = None
        self._left: list[tuple[Node, Watch, list[asyncio.Task[Any]]]] = []

    # --- what the script does

    async def post(self, path: str, key: str | None = None, **request: Any) -> Any:
        """Ask until there is an answer; the same key always gets the same one."""
        if key:
            request["headers"] = request.get("headers", {}) | {"Idempotency-Key": key}
            self._requests[key] = path, request
        while True:
            answer = await self._act(lambda: self.node.client.post(path, **request))
            if isinstance(answer, httpx.Response) and answer.status_code < 500:
                body = answer.json()
                if body.get("code") not in ("IDEMPOTENCY_KEY_IN_FLIGHT", "DATABASE_ERROR"):
                    break
            await self._pause(f"POST {path} is answered, not with {answer!r}")
        if answer.is_success and key and self.answers.setdefault(key, body) != body:
            raise NotRecoveredError(f"POST {path}: two answers to one key: {self.answers[key]} and {body}")
        return answer

    async def start_cycle(self, strategy: str = "queued") -> UUID:
        society = self.place.society
        wanted = {"tierId": str(society.tier_id), "deceasedMemberId": str(society.dead), "strategy": strategy}
        answer = await self.post(CYCLES, "start", json=wanted)
        if not answer.is_success:
            raise NotRecoveredError(f"POST {CYCLES}: {answer.status_code} {answer.text}")
        return UUID(answer.json()["cycleId"])

    async def steer(self, verb: str, job_id: UUID) -> None:
        """409 is an answer too: asked again because no answer came, the job is there already."""
        answer = await self.post(f"/api/jobs/{job_id}/{verb}")
        if answer.status_code not in (200, 409):
            raise NotRecoveredError(f"{verb}: {answer.status_code} {answer.text}")

    async def sweep(self) -> None:
        await self._act(lambda: self.node.maintain("sweep"))

    async def maintain(self, name: str) -> None:
        """As often as it takes: cron comes again, too."""
        await self._act(lambda: self.node.maintain(name))
        await self._act(lambda: self.node.maintain(name))

    async def until(self, goal: Callable[[], Awaitable[Any]], what: str, *, by_the_slice: bool = False) -> None:
        """A worker and the sweeper work until `goal`; `by_the_slice`: no further than the slice that reaches it."""
        swept_at = monotonic()
        while not await goal():
            worker = self.node.work(by_the_slice=by_the_slice)
            if self.watch.frozen.is_set():
                await self._take_over()
                continue
            if monotonic() > swept_at + SWEEP_SECONDS:
                await self.sweep()
                swept_at = monotonic()
            if by_the_slice and not worker.done():
                await asyncio.wait([worker], timeout=0.02)
            await self._pause(what, 0.01)
        await self._act(lambda: self.node.rest())  # struck while it goes, it is gone all the same

    async def rows_stand(self, cycle_id: UUID, rows: int) -> None:
        """Work by the slice until that many contributions stand, or the job runs no more."""

        async def enough() -> bool:
            state = await self.job_state(cycle_id)
            standing = await self.owner.fetchval("SELECT count(*) FROM contributions WHERE cycle_id = $1", cycle_id)
            return state not in ("Queued", "Processing") or standing >= rows

        await self.until(enough, f"{rows} rows stand", by_the_slice=True)

    async def quiet(self) -> None:
        """Work until no job is left that should run."""

        async def ended() -> bool:
            return not await self.owner.fetchval(
                "SELECT count(*) FROM batch_jobs WHERE state IN ('Queued', 'Processing')"
            )

        await self.until(ended, "all jobs have ended")

    async def job_id(self, subject_id: UUID, kind: str = "create_contributions") -> UUID:
        job_id: UUID = await self.owner.fetchval(
            "SELECT job_id FROM batch_jobs WHERE subject_id = $1 AND kind = $2", subject_id, kind
        )
        return job_id

    async def job_state(self, subject_id: UUID, kind: str = "create_contributions") -> str:
        state: str = await self.owner.fetchval(
            "SELECT state FROM batch_jobs WHERE subject_id = $1 AND kind = $2", subject_id, kind
        )
        return state

    async def not_replayed(self) -> list[str]:
        """Each request with a key is asked once more: the same answer, and nothing is done."""
        wrong = []
        for key, (path, request) in self._requests.items():
            answer = await self.node.client.post(path, **request)
            if answer.headers.get("Idempotent-Replayed") != "true" or answer.json() != self.answers[key]:
                wrong.append(f"POST {path} with the same key is not replayed: {answer.status_code} {answer.text}")
        return wrong

    # --- when a system stands still

    async def leave(self) -> None:
        await self.thaw()
        await self.node.stop()
        await self._redis.aclose(close_connection_pool=True)

    async def thaw(self) -> None:
        """What stood still goes on, however late, and ends."""
        for node, watch, tasks in self._left:
            watch.thawed.set()
            if tasks:
                await asyncio.wait(tasks, timeout=PATIENCE_SECONDS)
            await node.stop()
        self._left.clear()

    async def _act(self, begin: Callable[[], Awaitable[Any]]) -> Any:
        """What came of it: an answer, an exception, or None when the node stands still and was left."""

        async def act() -> Any:
            return await begin()

        task, frozen = asyncio.create_task(act()), asyncio.create_task(self.watch.frozen.wait())
        await asyncio.wait([task, frozen], return_when=asyncio.FIRST_COMPLETED)
        frozen.cancel()
        if not task.done() and self.watch.stalls_only:  # the client is patient
            await asyncio.sleep(STALL * self.place.settings.lease_seconds)
            self.watch.thawed.set()
            await asyncio.wait([task])
            self.watch.frozen.clear()
        elif not task.done():
            await self._take_over(task)
            return None
        if task.cancelled():
            return asyncio.CancelledError()
        return task.exception() or task.result()

    async def _take_over(self, *tasks: asyncio.Task[Any]) -> None:
        """Another node goes on. The one that hangs wakes while others do its work, or when all is over."""
        self._left.append((self.node, self.watch, list(tasks)))
        lease = self.place.settings.lease_seconds
        if self.watch.stalls_only:
            asyncio.get_running_loop().call_later(STALL * lease, self.watch.thawed.set)
        elif not tasks and len(self.watch.calls) % 2:  # every other one wakes when all is over, like a request
            asyncio.get_running_loop().call_later(2 * lease, self.watch.thawed.set)
        self.watch = Watch()
        self.watch.begin()
        self.node = await Node(self.place.settings, self.place.society.api_key).start()

    async def _pause(self, what: str, seconds: float = 0.05) -> None:
        if monotonic() > self.begun_at + self.patience:
            standing = await self._standing()
            raise NotRecoveredError(f"{WAITED} in {self.patience} s it did not come true that {what}; {standing}")
        if self.seen is None and self._first_watch.hit_at:
            await self.look()
        await asyncio.sleep(seconds)

    async def look(self) -> None:
        """In the middle of it, right after a fault: the invariants hold at every instant, not only in the end.

        In a task that nobody watches: what is asked here is no call of the system's, to be broken or held up.
        """

        async def ask() -> list[str]:
            self.watch.end()
            return await broken(self.owner, self._board)

        self.seen = [f"right after the fault, {one}" for one in await asyncio.create_task(ask())]

    async def _standing(self) -> str:
        jobs = await self.owner.fetch(
            "SELECT j.kind, j.state, j.error, s.shard_no, s.processed, s.done, s.attempts, s.lease_expires_at,"
            " s.next_attempt_at, s.error AS shard_error FROM batch_jobs AS j JOIN batch_job_shards AS s USING (job_id)"
        )
        return str([dict(job) for job in jobs])


async def _nothing(_: Any) -> None:
    pass


@dataclass(frozen=True)
class Scenario:
    """`script` may be run again from its start at any time; `check` says what is not as it must be in the end."""

    script: Callable[[Run], Awaitable[None]]
    check: Callable[[Run], Awaitable[list[str]]]
    prepare: Callable[[Place], Awaitable[None]] = _nothing
    settings: Mapping[str, object] = field(default_factory=dict)


BY_THE_SLICE = {"slice_seconds": 0.0, "batch_rows": 40}
"""Each batch is a slice, and a ring, of its own."""


async def cycle(run: Run) -> None:
    await run.start_cycle()
    await run.quiet()
    await run.maintain("relay_events")
    await run.maintain("chain_audit")


async def inline(run: Run) -> None:
    await run.start_cycle("inline")
    await run.quiet()


async def pause(run: Run) -> None:
    cycle_id = await run.start_cycle()
    await run.rows_stand(cycle_id, 40)
    job_id = await run.job_id(cycle_id)
    await run.steer("pause", job_id)
    await run.steer("resume", job_id)
    await run.quiet()


async def cancel(run: Run) -> None:
    cycle_id = await run.start_cycle()
    await run.rows_stand(cycle_id, 80)
    await run.steer("cancel", await run.job_id(cycle_id))
    await run.quiet()


async def retry(run: Run) -> None:
    """The job fails at a row that a constraint forbids; the cause is mended, and it is retried."""
    cycle_id = await run.start_cycle()

    async def failed() -> bool:
        return bool(
            await run.owner.fetchval(
                "SELECT state = 'Failed' OR attempts > 0 FROM batch_jobs WHERE subject_id = $1", cycle_id
            )
        )

    await run.until(failed, "the job fails")
    await run.owner.execute("ALTER TABLE contributions DROP CONSTRAINT IF EXISTS planted")
    if await run.job_state(cycle_id) == "Failed":
        await run.steer("retry", await run.job_id(cycle_id))
    await run.quiet()


async def forbid_the_middle_member(place: Place) -> None:
    await place.owner.execute(
        "DO $$ BEGIN EXECUTE format('ALTER TABLE contributions ADD CONSTRAINT planted CHECK (member_id <> %L)', ("
        f"SELECT member_id FROM tier_memberships WHERE tenant_id = '{place.society.tenant_id}'"
        f" ORDER BY member_id OFFSET {place.society.members // 2} LIMIT 1)); END $$"
    )


async def transient(run: Run) -> None:
    """The second batch finds the disk full, once; and every ring is lost before it is heard."""
    cycle_id = await run.start_cycle()
    await flush_redis(run.place.settings.redis_url)
    await run.sweep()
    await run.rows_stand(cycle_id, 1)
    await run.quiet()


async def fill_the_disk_once(place: Place) -> None:
    """As PostgreSQL reports it."""
    await place.owner.execute(
        """
        CREATE SEQUENCE batches;
        GRANT USAGE ON SEQUENCE batches TO guthi_app;
        CREATE FUNCTION fill_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF nextval('batches') = 2 THEN RAISE 'could not extend file' USING ERRCODE = '53100'; END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER fill_disk BEFORE INSERT ON contributions FOR EACH STATEMENT EXECUTE FUNCTION fill_disk();
        """
    )


async def given_up(run: Run) -> None:
    """A batch has killed workers before; the last lease that it may let run out fails the job, and it is retried."""
    cycle_id = await run.start_cycle()
    await run.owner.execute(
        "UPDATE batch_job_shards SET lease_token = uuidv7(), lease_expires_at = now(), attempts = $1"
        " WHERE lease_token IS NULL AND processed = 0 AND NOT done AND EXISTS ("
        "SELECT FROM batch_jobs AS j WHERE j.job_id = batch_job_shards.job_id AND j.version = 1"
        " AND j.kind = 'create_contributions')",
        run.place.settings.max_attempts - 1,
    )

    async def failed() -> bool:
        return bool(
            await run.owner.fetchval(
                "SELECT state = 'Failed' OR attempts > 0 FROM batch_jobs WHERE subject_id = $1", cycle_id
            )
        )

    await run.until(failed, "the job is given up")
    if await run.job_state(cycle_id) == "Failed":
        await run.steer("retry", await run.job_id(cycle_id))
    await run.quiet()


GOOD_LINES = 45
CSV = "full_name,gender,tier,agent,status,member_number\n" + "".join(
    f"Imported {n},{'FMO'[n % 3]},A,AG{n % 3 + 1},Active,{f'UML-2020-F-{n:06}' if n % 10 == 0 else ''}\n"
    if n % 15
    else f"Bad {n},F,Z,,Active,\n"
    for n in range(1, 49)
)
"""45 good lines, some with numbers of their own, and 3 with a tier that does not exist."""


async def bring_in(run: Run) -> UUID:
    """The id of the import's job."""
    headers = {"Content-Type": "text/csv"}
    answer = await run.post("/api/members/import", "import", content=CSV.encode(), headers=headers)
    if not answer.is_success:
        raise NotRecoveredError(f"import: {answer.status_code} {answer.text}")
    return UUID(answer.json()["jobId"])


async def import_members(run: Run) -> None:
    await bring_in(run)
    await run.quiet()


async def cancel_import(run: Run) -> None:
    job_id = await bring_in(run)

    async def begun() -> bool:
        row = await run.owner.fetchrow(
            "SELECT state, processed FROM batch_jobs JOIN batch_job_shards USING (job_id) WHERE job_id = $1", job_id
        )
        return row is not None and (row["processed"] > 0 or row["state"] not in ("Queued", "Processing"))

    await run.until(begun, "a batch is in", by_the_slice=True)
    await run.steer("cancel", job_id)
    await run.quiet()


# --- what must be there in the end


async def active(run: Run) -> list[str]:
    one, wrong = await _cycle(run)
    owing = await members_who_owe(run.owner, run.place.society.tenant_id, run.place.society.tier_id)
    jobs = await _jobs(run)
    wanted = {"create_contributions": ("Completed", len(owing)), "notify_agents_new_cycle": ("Completed", 3)}
    events = [row["event_type"] for row in await _events(run, one["cycle_id"])]
    return [
        *wrong,
        *await wrong_contributions(run.owner, one["cycle_id"], owing),
        *await wrong_notifications(run.owner, one["cycle_id"], owing),
        *found(
            (one["cycle_status"] != "Active", lambda: f"the cycle is {one['cycle_status']}"),
            (one["total_members"] != len(owing), lambda: f"the cycle counts {one['total_members']} members"),
            (jobs != wanted, lambda: f"the jobs are {jobs}"),
            (events[0] != "ContributionCycleInitiated", lambda: f"the events are {events}"),
            (events.count("ContributionCycleActivated") != 1, lambda: f"the events are {events}"),
        ),
    ]


async def relayed(run: Run) -> list[str]:
    """And every event has its place in the feed, in order, once."""
    wrong = await run.owner.fetchval(
        "SELECT count(*) FROM (SELECT position, row_number() OVER (PARTITION BY tenant_id ORDER BY position) AS n"
        " FROM events) AS e WHERE position IS DISTINCT FROM n"
    )
    return [*await active(run), *found((wrong > 0, lambda: f"{wrong} events have no place, or a wrong one"))]


async def failed_once(run: Run) -> list[str]:
    """And it tells so, exactly once."""
    one, _ = await _cycle(run)
    events = [row["event_type"].removeprefix("ContributionCycle") for row in await _events(run, one["cycle_id"])]
    wanted = ["Initiated", "Failed", "Retried", "Activated"]
    return [*await active(run), *found((events != wanted, lambda: f"the events are {events}"))]


async def cancelled(run: Run) -> list[str]:
    one, wrong = await _cycle(run)
    jobs = await _jobs(run)
    states = {kind: state for kind, (state, _) in jobs.items()}
    rows = await run.owner.fetchval("SELECT count(*) FROM contributions")
    told = await run.owner.fetchval("SELECT count(*) FROM notifications")
    return [
        *wrong,
        *found(
            (one["cycle_status"] != "Cancelled", lambda: f"the cycle is {one['cycle_status']}"),
            (rows + told > 0, lambda: f"{rows} rows and {told} notifications are left"),
            (states != {"create_contributions": "Cancelled", "remove_contributions": "Completed"}, lambda: str(jobs)),
            (jobs["create_contributions"][1] != jobs["remove_contributions"][1], lambda: str(jobs)),
        ),
    ]


async def imported(run: Run) -> list[str]:
    """Each good line is one member with one number, one event and one membership; each bad one is told of once."""
    names = [row["full_name"] for row in await run.owner.fetch("SELECT full_name FROM members WHERE full_name ~ 'Imp'")]
    told = await run.owner.fetch("SELECT fields ->> 'line' AS line FROM batch_job_log WHERE event = 'row_rejected'")
    jobs = await _jobs(run)
    return [
        *await _staging(run),
        *found(
            (sorted(names) != sorted(set(names)), lambda: "a line was imported twice"),
            (len(names) != GOOD_LINES, lambda: f"{len(names)} members came of {GOOD_LINES} good lines"),
            (sorted(row["line"] for row in told) != ["16", "31", "46"], lambda: f"told of bad lines {told}"),
            (jobs != {"import_members": ("Completed", 48)}, lambda: f"the jobs are {jobs}"),
        ),
    ]


async def import_cancelled(run: Run) -> list[str]:
    """What was made before stays, each line once; nothing of the file is kept."""
    names = [row["full_name"] for row in await run.owner.fetch("SELECT full_name FROM members WHERE full_name ~ 'Imp'")]
    told = await run.owner.fetchval("SELECT count(*) FROM batch_job_log WHERE event = 'row_rejected'")
    ((state, processed),) = (await _jobs(run)).values()
    return [
        *await _staging(run),
        *found(
            (len(names) != len(set(names)), lambda: "a line was imported twice"),
            (len(names) + told != processed, lambda: f"{len(names)} + {told} lines, {processed} were walked"),
            (state != "Cancelled", lambda: f"the job is {state}"),
        ),
    ]


async def _staging(run: Run) -> list[str]:
    left = await run.owner.fetchval("SELECT count(*) FROM member_import_rows")
    return found((left > 0, lambda: f"{left} staged lines are left"))


async def _cycle(run: Run) -> tuple[Cycle, list[str]]:
    """However often it was asked for, there is one and its number is the first."""
    rows = await run.owner.fetch("SELECT * FROM contribution_cycles ORDER BY cycle_id")
    codes = [row["cycle_code"] for row in rows]
    return dict(rows[0]), found(
        (len(rows) != 1 or not codes[0].endswith("-00001"), lambda: f"one was asked for, the cycles are {codes}")
    )


async def _jobs(run: Run) -> dict[str, tuple[str, int]]:
    rows = await run.owner.fetch(
        "SELECT kind, state, sum(processed)::bigint AS processed FROM batch_jobs JOIN batch_job_shards"
        " USING (tenant_id, job_id) GROUP BY kind, state, job_id"
    )
    return {row["kind"]: (row["state"], row["processed"]) for row in rows}


async def _events(run: Run, aggregate_id: UUID) -> list[asyncpg.Record]:
    rows: list[asyncpg.Record] = await run.owner.fetch(
        "SELECT event_type FROM events WHERE aggregate_id = $1 ORDER BY version", aggregate_id
    )
    return rows


SCENARIOS: Mapping[str, Scenario] = {
    "cycle": Scenario(cycle, relayed, settings={"batch_rows": 60}),
    "shards": Scenario(cycle, relayed, settings=BY_THE_SLICE | {"shard_rows": 40}),
    "one batch": Scenario(cycle, relayed, settings={"batch_rows": 500}),
    "inline": Scenario(inline, active),
    "pause": Scenario(pause, active, settings=BY_THE_SLICE),
    "cancel": Scenario(cancel, cancelled, settings=BY_THE_SLICE),
    "retry": Scenario(retry, failed_once, forbid_the_middle_member, {"batch_rows": 40}),
    "transient": Scenario(transient, active, fill_the_disk_once, {"batch_rows": 60}),
    "given up": Scenario(given_up, failed_once, settings={"batch_rows": 60}),
    "import": Scenario(import_members, imported, settings={"batch_rows": 20}),
    "import cancelled": Scenario(cancel_import, import_cancelled, settings={"batch_rows": 20, "slice_seconds": 0.0}),
}
"""The first is the way from the POST to `Active`."""
MEMBERS = 120
