"""`python -m bench [names...] [--quick]`: measure, print the table, write `bench/results.md` after a whole run."""

import argparse
import asyncio
import os
import platform
import signal
import sys
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path

import psutil

from bench import cycles, faults, memory, million, progress
from bench.report import Figure, markdown
from bench.stage import Stage

Measure = Callable[[Stage, bool], Awaitable[list[Figure]]]
MEASURES: dict[str, Measure] = {
    "million": million.measure,
    "five_thousand": cycles.five_thousand,
    "recovery": faults.recovery,
    "neighbour": cycles.neighbour,
    "memory": memory.measure,
    "progress": progress.measure,
    "pause": faults.pause,
}
RESULTS = Path(__file__).with_name("results.md")


async def main(names: list[str], quick: bool) -> bool:
    """True when every goal was reached."""
    figures: list[Figure] = []
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # and the servers are stopped
    for name in names:
        print(f"measuring {name}", file=sys.stderr)
        # Each on servers of its own, so that no measurement pays for what another left behind.
        async with Stage() as stage:
            machine = await _machine(stage)
            figures += await MEASURES[name](stage, quick)
    report = f"{machine}\n\n{markdown(figures)}"
    print(report)
    if names == list(MEASURES) and not quick:
        RESULTS.write_text(f"# What the last whole run saw\n\n{report}")
    return all(figure.reached is not False for figure in figures)


async def _machine(stage: Stage) -> str:
    postgres = await stage.owner.fetchval("SHOW server_version")
    valkey = (await stage.redis.info("server"))["valkey_version"]
    packages = ", ".join(f"{name} {version(name)}" for name in ("arq", "asyncpg", "fastapi", "uvicorn"))
    memory_size = psutil.virtual_memory().total / 2**30
    return (
        f"{os.cpu_count()} cores, {memory_size:.0f} GiB; PostgreSQL {postgres}, Valkey {valkey}, "
        f"Python {platform.python_version()}, {packages}; load before the last measurement {os.getloadavg()[0]:.1f}."
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"what to measure: {', '.join(MEASURES)}; else all")
    parser.add_argument("--quick", action="store_true", help="small and few: to see that it runs, not what it reaches")
    given = parser.parse_args()
    if unknown := set(given.names) - set(MEASURES):
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    sys.exit(not asyncio.run(main(given.names or list(MEASURES), given.quick)))
