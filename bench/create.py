"""A cycle's contributions in every way that people make them, all ways in turn on one server."""

import asyncio
import time
from statistics import median
from typing import Any

import asyncpg

from bench.report import Figure, Part, Table, at_least, at_most, in_seconds, spread
from bench.scale import Scale
from bench.stage import Stage
from bench.ways import BULLMQ, OWN_TABLES, QUEUES, STATEMENTS, Ours, Peer, Way
from tests.support import Society

TURNS = 3
SAMPLED, SAMPLED_FROM, BULLMQ_ROWS = 40, 200_000, 500
SLOW = (BULLMQ, *QUEUES[3:])
"""A minute a million: run in each turn up to `SAMPLED_FROM` members, and once above."""
HEAP = "bench_heap"
FLOOR = "the floor: a heap without any index, two sessions"
OWING = """
SELECT tenant_id, $1::uuid, member_id, 100, current_date + 15 FROM tier_memberships
WHERE tenant_id = $2 AND tier_id = $3 AND member_id <> $4
  AND valid_from <= now() AND (valid_to IS NULL OR valid_to > now())
"""
HEAP_TABLE = f"""
CREATE TABLE IF NOT EXISTS {HEAP} (
    tenant_id uuid NOT NULL, cycle_id uuid NOT NULL, member_id uuid NOT NULL,
    contribution_amount numeric(14, 2) NOT NULL CHECK (contribution_amount > 0),
    contribution_status text NOT NULL DEFAULT 'Pending' CHECK (contribution_status IN ('Pending', 'Paid', 'Failed')),
    due_date date NOT NULL
)
"""


async def measure(stage: Stage, scale: Scale, members: int) -> Part:
    is_giant, members = members > 1_000_000, scale.pick(members, 2_000)
    await stage.owner.execute(OWN_TABLES + HEAP_TABLE)
    society, small = await stage.society(members, "CRE"), await stage.society(2_000, "WAR")
    ways: list[Way] = [Ours(), *([STATEMENTS[0]] if is_giant else STATEMENTS)]
    peers = [] if is_giant or scale.quick else [*QUEUES, BULLMQ]
    ways += [peer for peer in peers if peer.missing() is None]
    seen: dict[str, list[dict[str, float]]] = {way.name: [] for way in ways} | {FLOOR: []}
    for turn in range(scale.pick(TURNS, 1)):
        for way in ways:
            if turn and way in SLOW and members > SAMPLED_FROM:
                continue
            async with way.open(stage, workers=2):
                await _run(stage, way, small)  # none is measured cold
                for _ in range(3 if members <= 5_000 else 1):
                    seen[way.name].append(await _run(stage, way, society))
        seen[FLOOR].append(await _run_floor(stage, society))
    skipped = {peer.name: peer.missing() or "" for peer in peers if isinstance(peer, Peer) and peer.missing()}
    figures = _figures(members, seen) if not is_giant else await _giant(stage, scale, society, seen)
    return Part([_table(members, seen, skipped)], figures, {"members": members, "ways": seen})


async def _run(stage: Stage, way: Way, society: Society) -> dict[str, float]:
    """One run: seconds until it is whole, the WAL it made, and the worker's peak memory so far."""
    sampled = SAMPLED if way is BULLMQ and society.members > SAMPLED_FROM else None
    await stage.clear()
    before, started = await _wal(stage), time.perf_counter()
    run = await way.start(society, sampled)
    await way.finish(run, 0.001 if society.members <= 100_000 else 0.005)
    seconds = time.perf_counter() - started
    wal = await _wal(stage) - before
    rows, wanted = await way.rows(run), SAMPLED * BULLMQ_ROWS if sampled else society.members
    if rows != wanted:
        raise RuntimeError(f"{way.name} made {rows} rows instead of {wanted}")
    scaled = seconds * society.members / rows
    return {"seconds": scaled, "wal": wal / rows, "memory": way.memory(), "extrapolated": float(bool(sampled))}


async def _run_floor(stage: Stage, society: Society) -> dict[str, float]:
    await stage.clear()
    before, seconds = await _wal(stage), await fill_heap(stage, society)
    return {"seconds": seconds, "wal": (await _wal(stage) - before) / society.members}


async def fill_heap(stage: Stage, society: Society) -> float:
    """Seconds of two sessions, each with half of the members."""
    middle = await stage.owner.fetchval(
        "SELECT member_id FROM tier_memberships WHERE tenant_id = $1 ORDER BY member_id OFFSET $2 LIMIT 1",
        society.tenant_id,
        society.members // 2,
    )
    cycle, other = await stage.owner.fetchval("SELECT uuidv7()"), await asyncpg.connect(stage.postgres.admin_url)
    columns = "(tenant_id, cycle_id, member_id, contribution_amount, due_date)"

    async def fill(session: Any, half: str) -> None:
        statement = f"INSERT INTO {HEAP} {columns} {OWING} AND member_id {half}"
        await session.execute(statement, cycle, society.tenant_id, society.tier_id, society.dead)

    started = time.perf_counter()
    try:
        await asyncio.gather(fill(stage.owner, f"<= '{middle}'"), fill(other, f"> '{middle}'"))
        return time.perf_counter() - started
    finally:
        await other.close()


async def _wal(stage: Stage) -> int:
    return int(await stage.superuser.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))


def _table(members: int, seen: dict[str, list[dict[str, float]]], skipped: dict[str, str]) -> Table:
    columns = ["way", "seconds", "rows a second", "to this system", "peak memory of the worker", "WAL bytes a row"]
    ours, tries = median(run["seconds"] for run in seen[Ours.name]), len(seen[Ours.name])
    rows = []
    for name, runs in seen.items():
        times = [run["seconds"] for run in runs]
        word = "extrapolated: " if runs[0].get("extrapolated") else ""
        word += "once: " if len(runs) == 1 < tries else ""
        between = f" ({in_seconds(min(times))} - {in_seconds(max(times))})" if len(times) > 1 else ""
        memory = max(run.get("memory", 0.0) for run in runs)
        rows.append(
            [
                name,
                f"{word}{in_seconds(median(times))}{between}",
                f"{members / median(times):,.0f}",
                f"{median(times) / ours:.2f} x",
                f"{memory:.0f} MiB" if memory else "",
                f"{median(run['wal'] for run in runs):,.0f}",
            ]
        )
    rows += [[name, f"skipped: {reason}", "", "", "", ""] for name, reason in skipped.items()]
    note = (
        f"Median of {tries} runs (fastest - slowest). This system: from the POST to `Active`; a queue: from the"
        " hand-over to the run's last commit; a statement: its own time. Memory is that of all processes that work,"
        " for a statement that of its client."
    )
    if any(run.get("extrapolated") for run in seen.get(BULLMQ.name, [])):
        note += f" BullMQ: extrapolated from {SAMPLED} batches, evenly spread over the members."
    return Table(f"{members:,} contributions", columns, rows, note)


def _figures(members: int, seen: dict[str, list[dict[str, float]]]) -> list[Figure]:
    times = {name: [run["seconds"] for run in runs] for name, runs in seen.items()}
    ours, plain, usual = times[Ours.name], times[STATEMENTS[0].name], times[STATEMENTS[2].name]
    size, behind = f"{members:,} members, POST to `Active`", f"ours: {spread(ours, 's')}"
    if members == 1_000_000:
        floor = times[FLOOR]
        against = f"{behind}; statement: {spread(plain, 's')}"
        return [
            at_most(
                f"{size}, to one INSERT … SELECT into the same table", median(ours) / median(plain), 1, " x", against
            ),
            at_most(f"{size}, to the floor", median(ours) / median(floor), 1.8, " x", spread(floor, "s")),
            at_least(
                f"{size}, faster than one INSERT … SELECT into the table that people usually have",
                median(usual) / median(ours),
                2.2,
                " x",
                spread(usual, "s"),
            ),
        ]
    oban = times.get(QUEUES[0].name)
    if members == 5_000 and oban:
        what = f"{size}, to Oban's plain job without API, plan, lease or checks"
        return [at_most(what, median(ours) / median(oban), 1, " x", f"{behind}; Oban: {spread(oban, 's')}")]
    return []


async def _giant(stage: Stage, scale: Scale, society: Society, seen: dict[str, list[dict[str, float]]]) -> list[Figure]:
    """The same rate as for a tenth of it, on the same servers."""
    way, tenth = Ours(), await stage.society(society.members // 10, "TEN")
    async with way.open(stage, workers=2):
        times = [(await _run(stage, way, tenth))["seconds"] for _ in range(scale.pick(TURNS, 1) + 1)][1:]
    giant = [run["seconds"] for run in seen[Ours.name]]
    slower = median(giant) / median(times) / (society.members / tenth.members)
    what = f"{society.members:,} members, time for a row to that at {tenth.members:,}"
    return [at_most(what, slower, 1.1, " x", f"{spread(giant, 's')}; a tenth: {spread(times, 's')}")]
