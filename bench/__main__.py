"""`python -m bench [names...] [--quick] [--large]`: measure, print Markdown, keep each part's results as it is done."""

import argparse
import asyncio
import json
import os
import platform
import signal
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from bench import crash, create, floor, growth, latency, reads
from bench.report import Part, markdown, write_below
from bench.scale import Scale
from bench.stage import Stage

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "performance.md"
"""Shows what lies in `results.json` here: below its mark each run brings it up to date."""
Measure = Callable[[Stage, Scale], Awaitable[Part]]
MEASURES: dict[str, Measure] = {
    "create-5000": partial(create.measure, members=5_000),
    "create-100000": partial(create.measure, members=100_000),
    "create-1000000": partial(create.measure, members=1_000_000),
    "latency": latency.measure,
    "growth": growth.measure,
    "reads": reads.measure,
    "floor": floor.measure,
    "crash": crash.measure,
    "pause": crash.pause,
}
LARGE: dict[str, Measure] = {"create-10000000": partial(create.measure, members=10_000_000)}


async def main(names: list[str], scale: Scale, results: Path | None) -> bool:
    """True when every goal of these parts was reached. What a part saw is kept before the next one begins."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # and the servers are stopped
    kept = results and results / "results.json"
    parts: dict[str, Any] = json.loads(kept.read_text()) if kept and kept.exists() else {}
    reached = True
    for name in names:
        print(f"measuring {name}", file=sys.stderr)
        # Each on servers of its own, so that no measurement pays for what another left behind.
        async with Stage() as stage:
            machine = await _machine(stage, scale)
            part = await (MEASURES | LARGE)[name](stage, scale)
        parts[name] = part.to_json() | {"machine": machine}
        parts = {known: parts[known] for known in [*MEASURES, *LARGE] if known in parts}
        if kept:
            kept.write_text(json.dumps(parts, indent=1))
        if results == HERE:
            write_below(PAGE, markdown(parts))
        print(markdown({name: parts[name]}))
        reached = reached and all(figure.reached for figure in part.figures)
    return reached


async def _machine(stage: Stage, scale: Scale) -> str:
    postgres = await stage.owner.fetchval("SHOW server_version")
    valkey = (await stage.redis.info("server"))["valkey_version"]
    packages = ", ".join(f"{name} {version(name)}" for name in ("arq", "asyncpg", "fastapi", "uvicorn"))
    memory_size = psutil.virtual_memory().total / 2**30
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {os.cpu_count()} cores, {memory_size:.0f} GiB; PostgreSQL {postgres},"
        f" Valkey {valkey}, Python {platform.python_version()}, {packages}; load before {os.getloadavg()[0]:.1f}"
        f"{'; quick: the sizes say nothing' if scale.quick else ''}."
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    known = f"{', '.join(MEASURES)}; with --large also {', '.join(LARGE)}"
    parser.add_argument("names", nargs="*", metavar="name", help=f"what to measure: {known}; else all")
    parser.add_argument("--quick", action="store_true", help="small and few: to see that it runs, not what it reaches")
    parser.add_argument("--large", action="store_true", help="ten million members, fifty million rows; an hour")
    parser.add_argument("--results", type=Path, help="a directory for results.json; no page is written from there")
    given = parser.parse_args()
    if unknown := set(given.names) - set(MEASURES | LARGE):
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    chosen = given.names or [*MEASURES, *(LARGE if given.large else {})]
    results = given.results or (None if given.quick else HERE)  # what is quick is not to stand beside what was measured
    sys.exit(not asyncio.run(main(chosen, Scale(given.quick, given.large), results)))
