"""Whether it stays as fast and as small: by the table's size, the workers' number, the size of batches and of jobs."""

import time
from statistics import median
from uuid import UUID

from bench.create import OWING
from bench.report import Part, Table, at_most, in_seconds
from bench.scale import Scale
from bench.stage import Client, Stage, until_active
from bench.ways import peak_memory
from tests.support import Society

TURNS = 3
BATCHES = (500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 0)
COLUMNS = "(tenant_id, cycle_id, member_id, contribution_amount, due_date)"


async def measure(stage: Stage, scale: Scale) -> Part:
    members = scale.pick(1_000_000, 10_000)
    society, quarter = await stage.society(members, "GRO"), await stage.society(members // 4, "QUA")
    tiny, turns = await stage.society(1_000, "TIN"), scale.pick(TURNS, 1)
    memory = [await _peak(stage, tiny), await _peak(stage, society)]
    workers = {n: await _jobs(stage, society, turns, n) for n in (1, 2, 4)}
    batches = {rows: await _jobs(stage, quarter, turns, 2, rows) for rows in BATCHES}
    filled = await _filled(stage, scale, society)
    by_size = [
        [f"{rows:,}", in_seconds(ours), in_seconds(plain), f"{ours / plain:.2f} x"] for rows, ours, plain in filled
    ]
    by_worker = [[str(n), in_seconds(median(times)), f"{members / median(times):,.0f}"] for n, times in workers.items()]
    by_batch = [
        [f"{rows:,}" if rows else "by time (the default)", f"{quarter.members / median(times):,.0f}"]
        for rows, times in batches.items()
    ]
    slower = filled[-1][1] / filled[0][1]
    return Part(
        [
            Table(
                f"{members:,} members more, by what the table holds",
                ["rows before", "this system", "one INSERT … SELECT", "ratio"],
                by_size,
            ),
            Table(
                f"{members:,} members, by workers",
                ["workers", "seconds", "rows a second"],
                by_worker,
                "With as many shards at once as workers.",
            ),
            Table(f"{quarter.members:,} members, by rows a batch", ["rows a batch", "rows a second"], by_batch),
            Table(
                "Peak memory of a worker",
                ["members", "MiB"],
                [[f"{s.members:,}", f"{peak:.1f}"] for s, peak in zip((tiny, society), memory, strict=True)],
            ),
        ],
        [
            at_most(f"a worker's peak memory after {members:,} members", memory[1], 120, " MiB"),
            at_most(f"the same to a worker after {tiny.members:,}", memory[1] / memory[0], 1.1, " x"),
            at_most(f"{members:,} members into a table of {filled[-1][0]:,} rows, to an empty one", slower, 1.25, " x"),
        ],
        {"filled": filled, "workers": workers, "batches": batches, "memory": memory, "members": members},
    )


async def _jobs(stage: Stage, society: Society, turns: int, workers: int, batch_rows: int = 0) -> list[float]:
    """Seconds from the POST to `Active`, each time into an empty table; the first time warms and is not counted."""
    tuned = {"GUTHI_JOB_PARALLELISM": str(max(workers, 2)), "GUTHI_BATCH_ROWS": str(batch_rows)}
    seconds = []
    async with stage.workers(workers, **tuned):
        for _ in range(turns + 1):
            await stage.clear()
            seconds.append(await _cycle(stage, society))
            await stage.settled()
    return seconds[1:]


async def _cycle(stage: Stage, society: Society) -> float:
    started = time.perf_counter()
    cycle = Client(stage.port, society.api_key).start_cycle(society, strategy="queued")
    return await until_active(stage.owner, cycle["cycleId"], 0.005) - started


async def _filled(stage: Stage, scale: Scale, society: Society) -> list[tuple[int, float, float]]:
    """Rows in the month's partition before, and then the seconds of this system and of the statement."""
    await stage.clear()
    seen, rows = [], 0
    steps = [0, 10, *([50] if scale.large else [])]
    async with stage.workers(2):
        for step in steps:
            while rows < step * society.members:
                await _statement(stage, society)
                rows += society.members
            await stage.superuser.execute("CHECKPOINT")
            ours, plain = [], []
            for _ in range(scale.pick(TURNS, 1)):
                ours.append(await _cycle(stage, society))
                await stage.settled()
                await stage.superuser.execute("CHECKPOINT")
                plain.append(await _statement(stage, society))
                await stage.superuser.execute("CHECKPOINT")
                rows += 2 * society.members
            seen.append((step * society.members, median(ours), median(plain)))
    await stage.clear()
    return seen


async def _statement(stage: Stage, society: Society) -> float:
    cycle: UUID = await stage.owner.fetchval("SELECT uuidv7()")
    started = time.perf_counter()
    statement = f"INSERT INTO contributions {COLUMNS} {OWING}"
    await stage.owner.execute(statement, cycle, society.tenant_id, society.tier_id, society.dead)
    return time.perf_counter() - started


async def _peak(stage: Stage, society: Society) -> float:
    await stage.clear()
    async with stage.workers(1) as (worker,):
        await _cycle(stage, society)
        await stage.settled()
        return peak_memory(worker.pid)
