"""Proves that nothing is lost and nothing is doubled: docs/reliability.md tells what each part does."""

import argparse
import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from typing import NoReturn

import psutil

from prove import crash_points, model, planted_bugs, security, soak
from prove.report import Options, Outcome, Part

PARTS: Mapping[str, tuple[Part, str]] = {
    "crash-points": (crash_points.prove, "every call broken in every way, one run for each"),
    "planted-bugs": (planted_bugs.prove, "bugs planted into a copy of the code must be noticed"),
    "model": (model.prove, "random histories of all that can happen, against a plain model"),
    "soak": (soak.prove, "steady load from several societies while everything under it breaks"),
    "security": (security.prove, "tenants, roles, tables and verbs; hostile words in every place of every call"),
}
"""Each with the line that `--help` has for it."""


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, and nothing was started."""
        print(f"prove: {message}; see scripts/prove --help", file=sys.stderr)
        sys.exit(2)


def parse(arguments: Sequence[str]) -> tuple[Sequence[str], Options]:
    """The parts to run, and how. Exits with 2 for what makes no sense."""
    parts = "\n".join(f"  {name:<14} {summary}" for name, (_, summary) in PARTS.items())
    parser = Parser(
        prog="scripts/prove",
        description=__doc__,
        epilog=f"parts:\n{parts}\n\nIt exits with 0 when all of it holds, with 1 when something was not proven.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="part", help="what to prove; all of it when none is named")
    parser.add_argument("--long", action="store_true", help="everything, instead of a sample in about a minute a part")
    parser.add_argument("--seed", type=_whole, help="draws the same sample again; each run prints its own")
    parser.add_argument("--minutes", type=_minutes, metavar="M", help="how long the soak lasts")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="TEXT",
        help="of one part, what has this in its name; may be repeated",
    )
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.parts if name not in PARTS]:
        parser.error(f"there is no part {', '.join(unknown)}: there are {', '.join(PARTS)}")
    names = list(dict.fromkeys(given.parts)) or list(PARTS)
    if given.minutes is not None and "soak" not in names:
        parser.error("--minutes is the soak's")
    if given.only and len(names) != 1:
        parser.error("--only needs one part")
    seed = random.randrange(10**6) if given.seed is None else given.seed
    return names, Options(given.long, seed, given.minutes, tuple(given.only))


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0, not {text!r}")
    return int(text)


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0
    if not 0 < minutes <= 100_000:
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return minutes


async def prove(names: Sequence[str], options: Options) -> bool:
    """Run the parts in turn and print what each found; True when all of it holds."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # and the servers are stopped
    memory = psutil.virtual_memory().total / 2**30
    print(f"{os.cpu_count()} cores, {memory:.0f} GiB; seed {options.seed}{', --long' if options.long else ''}")
    holds = True
    for name in names:
        started = time.monotonic()
        outcome: Outcome = await PARTS[name][0](options)
        holds = holds and not outcome.failures
        print(f"\n## {name}\n\n{outcome.report}\n")
        for failure in outcome.failures:
            print(f"NOT PROVEN: {failure}")
        print(f"{name}: {'fails' if outcome.failures else 'holds'}, {time.monotonic() - started:.0f} s", flush=True)
    return holds


def main(arguments: Sequence[str]) -> int:
    names, options = parse(arguments)
    try:
        return 0 if asyncio.run(prove(names, options)) else 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("prove: interrupted, nothing is proven", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
