"""What is left when a worker is killed, by whom the work goes on, and what a pause's answer is worth."""

import asyncio
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from bench.report import Part, Table, at_most, in_seconds, spread
from bench.scale import Scale
from bench.stage import Process, Stage, children_of
from bench.ways import BULLMQ, QUEUES, STATEMENTS, Ours, Peer, Run, Way
from tests.support import Society

OURS_TRIES, PAUSE_TRIES = 3, 12
PATIENCE_SECONDS = 15
"""How long the other worker is given, and then a restarted one."""


@dataclass(frozen=True)
class Aftermath:
    """What a SIGKILL of the process that works left. None: it did not come true within the patience."""

    stood: int
    shown: int
    by_itself: float | None
    after_restart: float | None
    is_whole: bool
    rows: int


async def measure(stage: Stage, scale: Scale) -> Part:
    members = scale.pick(300_000, 100_000)
    society = await stage.society(members, "KIL")
    peers = [STATEMENTS[0], STATEMENTS[3], *([] if scale.quick else [*QUEUES, BULLMQ])]
    ours = [await _kill(stage, Ours(), society) for _ in range(scale.pick(OURS_TRIES, 1))]
    seen: dict[str, Aftermath | str] = {Ours.name: max(ours, key=lambda after: after.by_itself or PATIENCE_SECONDS)}
    for peer in peers:
        seen[peer.name] = peer.missing() or await _kill(stage, peer, society)
    gaps = [PATIENCE_SECONDS * 10 if after.by_itself is None else after.by_itself for after in ours]
    what = "a SIGKILLed worker's job: from the kill to the next row by another, nothing restarted, longest"
    whole = sum(after.is_whole for after in ours)
    return Part(
        [_table(members, seen)],
        [
            at_most(what, max(gaps), 7, " s", spread(gaps, "s")),
            at_most("of these, not whole in the end", len(ours) - whole, 0, ""),
        ],
        {"seen": {name: after if isinstance(after, str) else after.__dict__ for name, after in seen.items()}},
    )


async def _kill(stage: Stage, way: Way, society: Society) -> Aftermath:
    """Of two workers the one that has the work is killed.

    Of this system's, which would share it, the second is frozen until shortly before. A peer's is known by the
    processor time that it took since the first batch: a frozen one would still be handed what Redis pops for it.
    """
    await stage.clear()
    async with way.open(stage, workers=2):
        frozen = way.workers[1:] if isinstance(way, Ours) else []
        for worker in frozen:
            worker.send(signal.SIGSTOP)
        before = {worker: _on_cpu(worker) for worker in way.workers}
        starting = asyncio.create_task(way.start(society))
        run = None
        if isinstance(way, Ours) or (isinstance(way, Peer) and way.has_worker):
            run = await starting
            while (shown := await way.processed(run)) < society.members // 10:
                if not shown:
                    before = {worker: _on_cpu(worker) for worker in way.workers}
                await asyncio.sleep(0.003)
        else:  # the client itself does it, and answers when all is done
            await asyncio.sleep(0.3)
            shown = await stage.owner.fetchval("SELECT coalesce(sum(processed), 0)::bigint FROM bench_runs")
        for worker in frozen:
            worker.send(signal.SIGCONT)
        await asyncio.sleep(0.05)
        victim = way.workers[0] if frozen else max(way.workers, key=lambda worker: _on_cpu(worker) - before[worker])
        victim.kill_group()
        killed = time.perf_counter()
        await asyncio.sleep(0.5)  # a commit that was on its way may still arrive
        if run is None:
            await asyncio.gather(starting, return_exceptions=True)
            stood = await stage.owner.fetchval("SELECT count(*) FROM contributions")
            return Aftermath(stood, shown, None, None, stood == society.members, stood)
        stood = await way.rows(run)
        if stood >= society.members:
            raise RuntimeError("the run was done before the kill: nothing was measured")
        by_itself = await _next_row(way, run, stood, killed)
        after_restart = None
        if by_itself is None:
            restarted = time.perf_counter()
            await way.start_worker(way.workers.index(victim))
            after_restart = await _next_row(way, run, stood, restarted)
        is_done = by_itself is not None or after_restart is not None
        if is_done:
            try:
                await asyncio.wait_for(way.finish(run, 0.01), PATIENCE_SECONDS)
            except TimeoutError:
                is_done = False
        rows = await way.rows(run)
        return Aftermath(stood, shown, by_itself, after_restart, is_done and rows == society.members, rows)


def _on_cpu(worker: Process) -> int:
    """Nanoseconds that it was on a processor so far, with what it started: Linux says."""
    tasks = [task for pid in (worker.pid, *children_of(worker.pid)) for task in Path(f"/proc/{pid}/task").iterdir()]
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


async def _next_row(way: Way, run: Run, stood: int, since: float) -> float | None:
    while await way.rows(run) <= stood:
        if time.perf_counter() - since > PATIENCE_SECONDS:
            return None
        await asyncio.sleep(0.02)
    return time.perf_counter() - since


def _table(members: int, seen: dict[str, "Aftermath | str"]) -> Table:
    columns = [
        "way",
        "shows progress",
        "rows that stood",
        "went on by itself",
        "after a restart",
        "can resume",
        "whole, nothing doubled",
    ]
    rows = [_row(name, after, members) for name, after in seen.items()]
    note = (
        "Two workers; the one that has the work is killed with SIGKILL (with what it started) once a tenth is done."
        " A statement's and COPY's client is the worker, and nobody takes up what it left. Who goes on has as long"
        f" again to end: {PATIENCE_SECONDS} s."
    )
    return Table(f"SIGKILL in the middle of {members:,} contributions", columns, rows, note)


def _row(name: str, after: "Aftermath | str", members: int) -> list[str]:
    if isinstance(after, str):
        return [name, f"skipped: {after}", "", "", "", "", ""]
    has_queue = name not in {way.name for way in STATEMENTS}
    went_on = after.by_itself is not None or after.after_restart is not None
    return [
        name,
        "yes" if after.shown else "no",
        f"{after.stood:,}",
        _wait(after.by_itself) if has_queue else "nobody could",
        _wait(after.after_restart) if has_queue and after.by_itself is None else "",
        "yes" if after.stood and went_on else "not seen" if after.stood else "no: nothing stood",
        "yes" if after.is_whole else f"{'not by then' if has_queue else 'no'}: {after.rows:,} of {members:,} rows",
    ]


def _wait(seconds: float | None) -> str:
    return f"not within {PATIENCE_SECONDS} s" if seconds is None else in_seconds(seconds)


async def pause(stage: Stage, scale: Scale) -> Part:
    """The rows that a snapshot right after the answer does not see and one a second later does."""
    members, tries = scale.pick(200_000, 100_000), scale.pick(PAUSE_TRIES, 2)
    society = await stage.society(members, "PAU")
    ways: list[Way] = [Ours(), *([] if scale.quick else [peer for peer in QUEUES if peer.can_stop])]
    rows, late_of_ours, data = [], 0, {}
    for way in ways:
        if isinstance(way, Peer) and (reason := way.missing()):
            rows.append([way.name, f"skipped: {reason}", "", ""])
            continue
        async with way.open(stage, workers=2):
            tried = [await _stop(stage, way, society, attempt / (2 * tries)) for attempt in range(tries)]
        answered, late = [seconds for seconds, _ in tried], [rows for _, rows in tried]
        if isinstance(way, Ours):
            late_of_ours = sum(late)
        data[way.name] = late
        rows.append([way.name, f"{sum(map(bool, late))} of {tries}", f"{max(late):,}", spread(answered, "ms", 1e3)])
    columns = ["way", "tries in which rows came after the answer", "most rows", "answered"]
    what = f"rows that appear after a pause's answer, {tries} tries"
    table = Table(f"Stopping a run of {members:,}", columns, rows, "This system: pause. DBOS and Oban: cancel.")
    return Part([table], [at_most(what, late_of_ours, 0, "")], {"late": data})


async def _stop(stage: Stage, way: Way, society: Society, share: float) -> tuple[float, int]:
    await stage.clear()
    run = await way.start(society)
    while await way.processed(run) <= share * society.members:
        await asyncio.sleep(0.002)
    asked = time.perf_counter()
    await way.stop(run, society)
    seconds = time.perf_counter() - asked
    stood = await way.rows(run)
    await asyncio.sleep(1)
    late = await way.rows(run) - stood
    if isinstance(way, Ours):
        await way.give_up(run, society)
    return seconds, late
