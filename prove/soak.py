"""`scripts/prove soak --minutes M [--seed S]`: steady load from several societies while everything under it breaks.

Real API and worker processes, PostgreSQL and Valkey of their own: stopped, killed, frozen, cut off and started
again every few seconds. At the end it is left alone to settle, and then nothing may be lost, doubled or shown to
another society. Ctrl-C ends the load early; the reckoning follows all the same.
"""

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import asyncpg

from jobs.engine.bell import connect_redis
from jobs.engine.progress import ProgressBoard
from jobs.invariants import broken_invariants
from prove.reconnecting import AWAY, Reconnecting
from prove.report import Options, Outcome, table
from prove.soak_check import UNSETTLED, reckon
from prove.soak_faults import Chaos, Fault
from prove.soak_load import NoAnswerError, Officer, Record
from prove.soak_stage import Stage
from tests.support import make_society

SOCIETIES = ("ABA", "BCB", "CDC", "DED")
MEMBERS = 1_200
AGENTS = 3
SETTLE_SECONDS = 180.0
UNEXPECTED = ('"request_failed"', '"invariant_broken"', '"exception"', "Traceback")
"""What no process may have said, whatever was done to it."""


@dataclass
class Result:
    """`holds`: nothing was found."""

    seconds: float
    record: Record
    chaos: Chaos
    restarts: int

    @property
    def holds(self) -> bool:
        return not self.record.findings


async def soak(seconds: float, seed: int, stop: asyncio.Event | None = None) -> Result:
    """Break things for so long, or until `stop` is set; then let it settle and look."""
    record = Record()
    async with Stage.open() as stage:
        officers = await _officers(stage, record, seed)
        chaos = Chaos(stage, record, f"{seed} faults")
        began = time.monotonic()
        try:
            await _break_and_settle(stage, officers, chaos, stop or asyncio.Event(), seconds)
        except* NoAnswerError:
            record.closing.set()
        await _reckon(stage, officers, record)
        stage.keep = bool(record.findings)
        if stage.keep:
            record.findings.append(f"data and logs are kept in {stage.directory}")
        return Result(time.monotonic() - began, record, chaos, stage.restarts)


async def _break_and_settle(
    stage: Stage, officers: Sequence[Officer], chaos: Chaos, stop: asyncio.Event, seconds: float
) -> None:
    record, watching = officers[0].record, [stage.owner(), stage.owner()]
    async with asyncio.TaskGroup() as tasks:
        watchers = [
            tasks.create_task(chaos.watch(watching[0])),
            tasks.create_task(_watch_invariants(watching[1], record)),
        ]
        print("soak: everything runs; Ctrl-C ends the load and still looks", file=sys.stderr, flush=True)
        load = [tasks.create_task(officer.work(stage.owner())) for officer in officers]
        load.append(tasks.create_task(chaos.rage()))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), seconds)
        record.closing.set()
        await asyncio.wait(load)
        await _settle(stage, officers, record)
        for watcher in watchers:
            watcher.cancel()


async def _officers(stage: Stage, record: Record, seed: int) -> list[Officer]:
    owner = await stage.owner().get()
    officers = []
    for name in SOCIETIES:
        society = await make_society(owner, MEMBERS, prefix=name, agents=AGENTS)
        rows = await owner.fetch(
            "SELECT member_id FROM tier_memberships WHERE tenant_id = $1 ORDER BY member_id", society.tenant_id
        )
        members = [row["member_id"] for row in rows]
        officers.append(Officer(name, society, members, stage.urls, record, f"{seed} {name}"))
        for shown in (society.tenant_id, society.user_id, society.tier_id, society.dead, *members):
            record.whose[str(shown)] = name
    for officer in officers:
        officer.others = [other for other in officers if other is not officer]
    return officers


async def _watch_invariants(owner: Reconnecting, record: Record) -> None:
    """At any instant, whatever is broken around: each invariant is asked in one snapshot. Until it is cancelled."""
    while True:
        began = time.monotonic()
        with contextlib.suppress(*AWAY):
            for broken in await broken_invariants(await owner.get()):
                record.find(f"meanwhile, {broken.invariant}: {broken.subject}: {broken.detail}")
            record.done["looks at all invariants meanwhile"] += 1
        await asyncio.sleep(max(1.0, 10 * (time.monotonic() - began)))  # it is a guest here, not a load


async def _settle(stage: Stage, officers: Sequence[Officer], record: Record) -> None:
    """Nothing is broken any more; officers take up what was paused or has failed, until all jobs have ended."""
    owner = await stage.owner().get()
    give_up_at = time.monotonic() + SETTLE_SECONDS
    while unsettled := await owner.fetch(UNSETTLED):
        if time.monotonic() > give_up_at:
            for row in unsettled:
                record.find(f"LOST: after {SETTLE_SECONDS:.0f} s of peace, {row[0]}")
            return
        for officer in officers:
            await officer.resume_paused()
            await officer.retry_failed()
        await asyncio.sleep(0.5)


async def _reckon(stage: Stage, officers: Sequence[Officer], record: Record) -> None:
    with contextlib.suppress(NoAnswerError):
        for officer in officers:
            while await officer.follow_feed():
                pass
    for officer in officers:
        await officer.close()
    redis = connect_redis(stage.settings)
    owner: asyncpg.Connection = await stage.owner().get()
    try:
        await reckon(owner, officers, record, ProgressBoard(redis, stage.settings))
    finally:
        await redis.aclose(close_connection_pool=True)
    secrets = [officer.society.api_key.rsplit("_", 1)[1] for officer in officers]
    for name, log in stage.logs().items():
        record.done["log lines searched"] += log.count("\n")
        if any(secret in log for secret in secrets):
            record.find(f"LEAK: a key stands in {name}")
        for line in log.splitlines():
            if any(word in line for word in UNEXPECTED):
                record.find(f"{name} said: {line[:500]}")


async def prove(options: Options) -> Outcome:
    """A quarter of a minute, ten minutes with `--long`, or what `--minutes` says."""
    minutes = options.minutes or (10.0 if options.long else 0.25)
    with _told_to_stop() as stop:
        result = await soak(minutes * 60, options.seed, stop)
    return Outcome(report(result), result.record.findings)


@contextlib.contextmanager
def _told_to_stop() -> Iterator[asyncio.Event]:
    """Set by the first Ctrl-C; a second one ends the process as ever."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    before = signal.getsignal(signal.SIGINT)

    def restore() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, before)

    def tell() -> None:
        stop.set()
        restore()

    loop.add_signal_handler(signal.SIGINT, tell)
    try:
        yield stop
    finally:
        restore()


def report(result: Result) -> str:
    """A table of the faults, and a list of what was counted."""
    faults = [fault for fault in result.chaos.faults if fault.recovered_at is not None]
    rows = []
    for kind in sorted({fault.kind for fault in result.chaos.faults}):
        same = [fault for fault in faults if fault.kind == kind]
        worst = max(same, key=Fault.seconds_to_recover, default=None)
        figures = [f"{worst.seconds_to_recover():.1f}", f"{worst.seconds_it_lasted():.1f}"] if worst else ["-", "-"]
        rows.append([kind, sum(fault.kind == kind for fault in result.chaos.faults), *figures])
    worst = max(faults, key=Fault.seconds_to_recover, default=None)
    lines = [
        f"{result.seconds / 60:.1f} minutes, {len(SOCIETIES)} societies of {MEMBERS:,} members",
        "",
        table(["fault", "times", "longest until the next batch, s", "of it the fault itself, s"], rows),
        "",
        *([f"- longest time to recover: {worst.seconds_to_recover():.1f} s ({worst.kind})"] if worst else ()),
        f"- longest time to recover once nothing was broken any more: {result.chaos.longest_peace:.1f} s",
        f"- longest time until an officer had an answer: {result.record.longest_wait:.1f} s",
        f"- processes started again: {result.restarts:,}",
        *(f"- {what}: {count:,}" for what, count in sorted(result.record.done.items())),
    ]
    if result.holds:
        lines += ["", "Nothing lost, nothing doubled, nothing shown to another society, every invariant holds."]
    return "\n".join(lines)
