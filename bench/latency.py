"""How long people wait: alone with an idle worker, beside a giant, and a hundred at once."""

import asyncio
import time
from collections.abc import Sequence
from statistics import median
from typing import Any
from uuid import UUID

import httpx
import psutil

from bench.report import Figure, Part, Table, at_most, in_seconds, spread
from bench.scale import Scale
from bench.stage import CYCLES, Client, Process, Stage
from tests.support import Society

POLL_SECONDS = 0.001
AT_ONCE, SOCIETIES = 100, 10
WAITS = ("answered", "row", "active", "pickup")
WATCHED = """
SELECT cycle_status, EXISTS (SELECT FROM contributions AS b WHERE b.tenant_id = c.tenant_id AND b.cycle_id = c.cycle_id)
FROM contribution_cycles AS c WHERE cycle_id = $1
"""


async def measure(stage: Stage, scale: Scale) -> Part:
    members, tries = scale.pick(5_000, 2_000), scale.pick(40, 3)
    giant_members, giants = scale.pick(1_000_000, 50_000), scale.pick(3, 1)
    small, giant = await stage.society(members, "SMA"), await stage.society(giant_members, "GIA")
    async with stage.workers(1, GUTHI_LOG_LEVEL="debug") as workers:
        share = await _cpu_share(workers[0].pid, scale.pick(20, 2))
        alone = [await _cycle(stage, small, workers) for _ in range(tries + 5)][5:]
        await stage.settled()
    async with stage.workers(2, GUTHI_LOG_LEVEL="debug") as workers:
        beside = [times for _ in range(giants) for times in await _beside(stage, giant, small, workers)]
        crowd = await _at_once(stage, [await stage.society(members, f"CR{chr(65 + n)}") for n in range(SOCIETIES)])
        await stage.clear()
    columns = ["", "POST answered", "to the first row", "to `Active`", "pickup"]
    named = {f"{members:,} members, idle system": alone, f"beside {giant_members:,} of another society": beside}
    rows = [
        [name, *(spread([cycle[what] for cycle in cycles], "ms", 1e3) for what in WAITS)]
        for name, cycles in named.items()
    ]
    crowd_rows = [
        ["all answered after", in_seconds(max(crowd["answered"]))],
        ["asked again after a 503", str(len(crowd["refused"]))],
        ["an answer", spread(crowd["answered"], "ms", 1e3)],
        ["`Active`", spread(crowd["active"], "ms", 1e3)],
        ["all `Active` after", in_seconds(max(crowd["active"]))],
    ]
    return Part(
        [
            Table("A cycle's waits", columns, rows),
            Table(
                f"{AT_ONCE} cycles of {members:,} members started at once, {SOCIETIES} societies", ["", ""], crowd_rows
            ),
        ],
        _figures(members, giant_members, alone, beside, share),
        {"alone": alone, "beside": beside, "crowd": crowd},
    )


def _figures(
    members: int, giant: int, alone: list[dict[str, float]], beside: list[dict[str, float]], share: float
) -> list[Figure]:
    def in_ms(cycles: list[dict[str, float]], what: str) -> float:
        return 1e3 * median(cycle[what] for cycle in cycles)

    return [
        at_most(f"{members:,} members, POST answered", in_ms(alone, "answered"), 15, " ms"),
        at_most(f"{members:,} members, POST to `Active`", in_ms(alone, "active"), 100, " ms"),
        at_most("pickup by an idle worker, queue to hand", in_ms(alone, "pickup"), 4, " ms"),
        at_most("an idle worker's share of a core", 100 * share, 1, " %"),
        at_most(f"{members:,} members beside {giant:,}, POST to `Active`", in_ms(beside, "active"), 500, " ms"),
    ]


async def _cycle(stage: Stage, society: Society, workers: Sequence[Process]) -> dict[str, float]:
    """Posted once the word to the agents of the one before is out, on a connection that stands."""
    await asyncio.sleep(0.2)
    client = Client(stage.port, society.api_key)
    client.call("GET", "/livez")
    before = [len(worker.events("job_picked_up")) for worker in workers]
    started = time.perf_counter()
    cycle = client.start_cycle(society, strategy="queued")
    seen = {"answered": time.perf_counter() - started}
    watched = await stage.owner.prepare(WATCHED)
    while "active" not in seen:
        status, has_row = await watched.fetchrow(UUID(cycle["cycleId"]))
        if has_row:
            seen.setdefault("row", time.perf_counter() - started)
        if status == "Active":
            seen["active"] = time.perf_counter() - started
        await asyncio.sleep(POLL_SECONDS)
    pickups = [event for n, worker in zip(before, workers, strict=True) for event in worker.events("job_picked_up")[n:]]
    # The giant's rings may be among them beside it: of one that a sweep rang twice the first counts.
    seen["pickup"] = min(event["seconds"] for event in pickups)
    return seen


async def _beside(stage: Stage, giant: Society, small: Society, workers: Sequence[Process]) -> list[dict[str, float]]:
    """Only cycles that began and ended while the giant ran are counted."""
    await stage.clear()
    job = Client(stage.port, giant.api_key).start_cycle(giant)["jobId"]
    counted: list[dict[str, float]] = []
    while await _state(stage, job) == "Queued":
        await asyncio.sleep(POLL_SECONDS)
    while True:
        seen = await _cycle(stage, small, workers)
        if await _state(stage, job) != "Processing" and counted:
            return counted
        counted.append(seen)


async def _at_once(stage: Stage, societies: Sequence[Society]) -> dict[str, list[float]]:
    """Seconds from the first request on, to each answer and to each `Active`."""
    await stage.clear()
    limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
    refused: list[float] = []
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{stage.port}", limits=limits, timeout=60) as client:
        started = time.perf_counter()

        async def start(number: int) -> tuple[str, float]:
            society = societies[number % len(societies)]
            headers = {"Authorization": f"Bearer {society.api_key}", "Idempotency-Key": f"bench-{number:04}"}
            body = {"tierId": str(society.tier_id), "deceasedMemberId": str(society.dead), "strategy": "queued"}
            while (answer := await client.post(CYCLES, json=body, headers=headers)).status_code == 503:
                refused.append(number)  # every connection of the pool was busy for too long: asked again, as told
                await asyncio.sleep(float(answer.headers["Retry-After"]))
            answer.raise_for_status()
            return answer.json()["cycleId"], time.perf_counter() - started

        answers = await asyncio.gather(*(start(number) for number in range(AT_ONCE)))
    active: dict[Any, float] = {}
    while len(active) < AT_ONCE:
        query = "SELECT cycle_id FROM contribution_cycles WHERE cycle_status = 'Active'"
        for row in await stage.owner.fetch(query):
            active.setdefault(row["cycle_id"], time.perf_counter() - started)
        await asyncio.sleep(0.005)
    return {"answered": [seconds for _, seconds in answers], "active": list(active.values()), "refused": refused}


async def _cpu_share(pid: int, seconds: float) -> float:
    process = psutil.Process(pid)
    before = process.cpu_times()
    await asyncio.sleep(seconds)
    after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / seconds


async def _state(stage: Stage, job_id: str) -> Any:
    return await stage.owner.fetchval("SELECT state FROM batch_jobs WHERE job_id = $1::text::uuid", job_id)
