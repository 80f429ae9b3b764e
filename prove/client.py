"""One client at the system while it is broken: it asks, asks again until an answer comes, and goes on."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any
from uuid import UUID
from zlib import crc32

import httpx

from jobs.engine.bell import connect_redis
from jobs.engine.progress import ProgressBoard
from prove.injection import Watch
from prove.node import Node
from prove.world import Place, broken

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
        self.is_refused = False
        """The last steering was answered with 409."""
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
        self.is_refused = answer.status_code == 409
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
            while answer.status_code == 503:  # as told: a cancellation may reach the next statement of its session
                await self._pause(f"POST {path} is answered, not with {answer.text}")
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
        # Half of the calls that hang wake when all is over, as every request does: by their names, as how many calls
        # came before depends on time, and a bug must be met in the same way by every run.
        elif not tasks and crc32(str(self.watch.calls[-1]).encode()) % 2:
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
