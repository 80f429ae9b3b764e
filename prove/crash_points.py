"""Every call on the way is broken in every way it can break, one run for each; then nothing but the system repairs it.

A run without faults notes the calls of a scenario, each by its name and how many of that name came before. Then
each of them, in each mode, has a run of its own on a fresh database: the call is broken, the client asks again
until it has its answer, workers and the sweeper go on, and what stands in the end is held against what must.
"""

import asyncio
import logging
import multiprocessing
import os
import random
import signal
import sys
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from time import monotonic
from typing import Any

import asyncpg

from core.settings import Settings
from prove.client import PATIENCE_SECONDS, STALL_LEASE_SECONDS, NotRecoveredError, Run
from prove.injection import KILLS, Mode, Point, Watch, watching
from prove.node import Node
from prove.report import Options, Outcome, table
from prove.scenarios import MEMBERS, SCENARIOS, Scenario
from prove.world import Place, World, broken
from tests.support import Society

AT_ONCE = 14
"""Most of a run is waiting: for a lease to run out, for a sweep."""
SETTINGS: dict[str, object] = {
    "lease_seconds": 1.0,
    "backoff_seconds": 0.05,
    "inline_below": 0,
    "database_pool_size": 4,
    "max_attempts": 10,
}
CHEAP = (Mode.REFUSED, Mode.CUT, Mode.LOST, Mode.CANCELLED, Mode.CANCELLED_AFTER)
"""A short proof breaks every call of the first scenario in one of these, and draws a sample of all there is."""
SAMPLE, SECOND_SAMPLE = 30, 8
SECOND_SHARE = 25
"""Of so many calls and modes a long proof gives one a second fault, too."""
TRY_SECONDS = 3 * PATIENCE_SECONDS
"""What never ends by itself is not proven either."""
LAST_SECOND = 60
"""The second fault strikes up to this many calls after the first."""

_fork = multiprocessing.get_context("forkserver")
_fork.set_forkserver_preload(["prove.crash_points"])


@dataclass(frozen=True, slots=True)
class Try:
    """`second`: a fault that strikes that many calls after the first."""

    scenario: str
    mode: Mode
    point: Point
    second: tuple[Mode, int] | None = None

    def __str__(self) -> str:
        also = f", then {self.second[0]} {self.second[1]} calls later" if self.second else ""
        return f"{self.scenario}: {self.point} {self.mode}{also}"


@dataclass(frozen=True, slots=True)
class Tried:
    """`reached`: the fault struck. `wrong`: what was not as it must be in the end; empty when it recovered."""

    what: Try
    reached: bool
    wrong: Sequence[str]
    seconds: float


async def prove(options: Options) -> Outcome:
    """Short: every call of the first scenario in some mode, and a sample of all scenarios and modes. Long: all."""
    draw = random.Random(options.seed)
    names = [name for name in SCENARIOS if not options.only or any(text in name for text in options.only)]
    if not names:
        return Outcome(
            "", [f"no scenario has {' or '.join(options.only)} in its name: there are {', '.join(SCENARIOS)}"]
        )
    with watching():
        async with World.open(MEMBERS) as world:
            points = {name: await calls_of(world, SCENARIOS[name], name) for name in names}
            tries = _choose(points, options, draw)
            tried = await try_all(world, tries)
    return _report(points, tried)


def _choose(points: dict[str, Sequence[Point]], options: Options, draw: random.Random) -> list[Try]:
    every = [Try(name, mode, point) for name, of_it in points.items() for mode in Mode for point in of_it]
    if options.long:
        chosen = list(every)
    else:
        first = next(iter(SCENARIOS))
        chosen = [Try(first, draw.choice(CHEAP), point) for point in points.get(first, ())]
        chosen += draw.sample(every, min(SAMPLE, len(every)))
    modes = [mode for mode in Mode if mode not in (*KILLS, Mode.STALLED, Mode.FROZEN)]
    for one in draw.sample(every, len(every) // SECOND_SHARE if options.long else min(SECOND_SAMPLE, len(every))):
        second = (draw.choice(modes), draw.randint(1, LAST_SECOND))
        if one.mode not in (Mode.STALLED, Mode.FROZEN):
            chosen.append(Try(one.scenario, one.mode, one.point, second))
    return chosen


async def calls_of(world: World, scenario: Scenario, name: str) -> Sequence[Point]:
    """The calls of a run that nothing disturbs. Raises `NotRecoveredError` when even that does not end well."""
    watch = Watch()
    wrong = await asyncio.create_task(_play_in_new_place(world, scenario, watch))
    if wrong:
        raise NotRecoveredError(f"{name}, with no fault at all: {'; '.join(wrong)}")
    return watch.calls


async def _play_in_new_place(world: World, scenario: Scenario, watch: Watch) -> list[str]:
    async with world.place(**SETTINGS | dict(scenario.settings)) as place:
        await scenario.prepare(place)
        return await play(place, scenario, watch)


async def try_all(world: World, tries: Iterable[Try]) -> list[Tried]:
    """As many at once as help. Every so often it says on stderr how far it is."""
    tries, slots, done = list(tries), asyncio.Semaphore(AT_ONCE), count(1)

    async def in_turn(one: Try) -> Tried:
        async with slots:
            try:
                async with asyncio.timeout(TRY_SECONDS):
                    return await try_one(world, one)
            except TimeoutError:
                return Tried(one, True, [f"it did not end in {TRY_SECONDS} s"], TRY_SECONDS)
            except Exception as error:
                return Tried(one, False, ["".join(traceback.format_exception(error))], 0.0)
            finally:
                if (number := next(done)) % 200 == 0:
                    print(f"{number} of {len(tries)} runs", file=sys.stderr, flush=True)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(in_turn(one)) for one in tries]
    return [task.result() for task in tasks]


async def try_one(world: World, one: Try) -> Tried:
    scenario = SCENARIOS[one.scenario]
    lease = {"lease_seconds": STALL_LEASE_SECONDS} if one.mode is Mode.STALLED else {}
    async with world.place(**SETTINGS | dict(scenario.settings) | lease) as place:
        await scenario.prepare(place)
        if one.mode in KILLS:
            struck_at = await _die(place, one)
            watch = Watch(*_second(one, after_kill=True)) if struck_at else Watch()
        else:
            struck_at, watch = None, Watch(one.mode, one.point, *_second(one, after_kill=False))
        wrong = await asyncio.create_task(play(place, scenario, watch, is_struck=struck_at is not None))
        struck_at = struck_at or watch.hit_at
        return Tried(one, struck_at is not None, wrong, watch.done_at - (struck_at or watch.done_at))


def _second(one: Try, *, after_kill: bool) -> tuple[Any, ...]:
    if one.second is None:
        return ()
    mode, later = one.second
    return (mode, Point("", later)) if after_kill else (mode, later)


async def play(place: Place, scenario: Scenario, watch: Watch, *, is_struck: bool = False) -> list[str]:
    """Run the script to its end; returns what is wrong then. Takes a task of its own: the task is watched."""
    watch.begin()
    run = Run(place, watch, await Node(place.settings, place.society.api_key).start())
    try:
        if is_struck:
            await run.look()
        await scenario.script(run)
        watch.done_at = monotonic()
        await run.thaw()
        watch.end()
        return [*(run.seen or []), *await _wrong(run, scenario)]
    except NotRecoveredError as error:
        return [*(run.seen or []), str(error)]
    except Exception as error:  # of the harness, or what it never expected of the system: not proven either
        return [*(run.seen or []), "".join(traceback.format_exception(error))]
    finally:
        watch.done_at = watch.done_at or monotonic()
        watch.end()
        await run.leave()


async def _wrong(run: Run, scenario: Scenario) -> list[str]:
    owner, place = run.owner, run.place
    wrong = [
        *await scenario.check(run),
        *await broken(owner, run.node.engine.progress),
        *await run.not_replayed(),
    ]
    neighbours = await owner.fetchval(
        "SELECT (SELECT count(*) FROM batch_jobs WHERE tenant_id = $1) + (SELECT count(*) FROM contributions"
        " WHERE tenant_id = $1) + (SELECT count(*) FROM counters WHERE tenant_id = $1)",
        place.neighbour.tenant_id,
    )
    if neighbours:
        wrong.append(f"{neighbours} rows belong to a tenant for whom nobody worked")
    if run.node.sessions_out:
        wrong.append(f"{run.node.sessions_out} sessions were not given back to the pool")
    if hanging := await _hanging(owner):
        wrong.append(f"a session hangs in a transaction: {hanging}")
    return wrong


async def _hanging(owner: asyncpg.Connection) -> str | None:
    """A transaction that nobody ends: what is open must be gone in a moment."""
    give_up_at = monotonic() + 2
    while hanging := await owner.fetchval(
        "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'"
    ):
        if monotonic() > give_up_at:
            return str(hanging)
        await asyncio.sleep(0.02)
    return None


# --- processes that really die


async def _die(place: Place, one: Try) -> float | None:
    """Run the script in a process that is armed to kill itself there; when it died, or None: it came to its end."""
    armed = place.settings.model_copy(update={"faults": one.point.fault(one.mode)})
    process = _fork.Process(target=_victim, args=(armed, place.society, place.neighbour, one.scenario), daemon=True)
    process.start()
    ended, hung = asyncio.Event(), False
    loop = asyncio.get_running_loop()
    loop.add_reader(process.sentinel, ended.set)
    try:
        async with asyncio.timeout(2 * PATIENCE_SECONDS):
            await ended.wait()
    except TimeoutError:
        hung = True
    finally:
        loop.remove_reader(process.sentinel)
        process.kill()
        process.join()
    if process.exitcode == -signal.SIGKILL and not hung:
        return monotonic()
    if process.exitcode:
        raise RuntimeError(f"the process that should have been killed {'hung' if hung else 'raised'}")
    return None


def _victim(settings: Settings, society: Society, neighbour: Society, name: str) -> None:
    """Dies on the way, or is gone the moment that it comes to the end."""
    logging.getLogger("arq").setLevel(logging.CRITICAL)

    async def live() -> None:
        owner = await asyncpg.connect(settings.admin_database_url)
        place = Place(settings, owner, society, neighbour)
        run = Run(place, Watch(), await Node(settings, society.api_key).start())
        try:
            await SCENARIOS[name].script(run)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)

    asyncio.run(live())


# --- the table


def _report(points: dict[str, Sequence[Point]], tried: Sequence[Tried]) -> Outcome:
    cells: defaultdict[tuple[str, str], list[Tried]] = defaultdict(list)
    for one in tried:
        column = "two faults" if one.what.second else str(one.what.mode)
        cells[one.what.scenario, column].append(one)
        cells[one.what.scenario, "all"].append(one)
        cells["all", column].append(one)
        cells["all", "all"].append(one)
    columns = [*map(str, Mode), "two faults", "all"]
    rows = [
        [
            name,
            len(points[name]) if name in points else sum(map(len, points.values())),
            *(_cell(cells[name, column]) for column in columns),
            f"{max((one.seconds for one in cells[name, 'all']), default=0):.1f}",
        ]
        for name in [*points, "all"]
    ]
    failures = [f"{one.what}: {'; '.join(one.wrong)}" for one in tried if one.wrong]
    missed = Counter(f"{one.what.scenario}: {one.what.point}" for one in tried if not one.reached)
    struck = len(tried) - missed.total()
    if struck < len(tried) / 2:
        failures.append(f"only {struck} of {len(tried)} faults struck: runs do not come by what the first ones came by")
    lines = [
        table(["scenario", "calls", *columns, "longest s"], rows),
        f"\n{struck} faults struck, {len(failures)} were not recovered from. Longest: from the fault to the end.",
    ]
    if missed:
        told = "; ".join(f"{point} ({times} times)" if times > 1 else point for point, times in missed.items())
        lines.append(f"{missed.total()} faults did not strike, as their run did not come by that call: {told}")
    return Outcome("\n".join(lines), failures)


def _cell(tried: Sequence[Tried]) -> str:
    """How many struck; and how many of those were not recovered from, if any."""
    struck = [one for one in tried if one.reached]
    lost = sum(bool(one.wrong) for one in struck)
    return f"{len(struck)}, {lost} LOST" if lost else str(len(struck))
