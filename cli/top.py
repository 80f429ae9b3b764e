"""`guthi top`: the society's jobs and the workers, live, with keys that steer the chosen job."""

import os
import sys
from typing import Annotated

import typer

from cli.client import ApiClient, open_api
from cli.job_rows import FAILED_JOBS, done_of, in_order, label_of, left_of
from cli.output import print_table
from cli.running import PATH, RunningJobs, summary_of
from cli.workers import print_workers
from core.errors import InvalidInputError


def top(once: Annotated[bool, typer.Option("--once", help="Print what is there now, and end.")] = False) -> None:
    """Watch jobs and workers live, and steer the chosen job: p pause, r resume, c cancel, t retry, q quit.

    Each key asks first and says what will happen. It shows what runs, what has failed, and what ended meanwhile. It
    outlives restarts of the API and lost connections. Exit code 0: quit; 130: interrupted by Ctrl-C.
    """
    if once:
        with open_api() as api:
            _print(api)
    elif _has_screen():
        from cli.top_app import run_top  # textual takes its time to load, and no other command needs it

        run_top()
    else:
        raise InvalidInputError("top needs a terminal; for a script there are --once, 'jobs list' and 'workers'")


def _print(api: ApiClient) -> None:
    running = next(RunningJobs(api).changes())
    failed = [summary_of(job) for job in api.get(PATH, state="Failed", limit=FAILED_JOBS)["items"]]
    header = ("JOB", "STATE", "DONE", "ROWS", "OF", "RATE", "LEFT", "BY", "ID", "ERROR")
    names = ("createdByName", "jobId", "error")
    rows = (
        [label_of(job), job["state"], done_of(job), job["processed"], job["total"], round(job["rate"]), left_of(job)]
        for job in in_order([*running, *failed])
    )
    rest = ([job[name] for name in names] for job in in_order([*running, *failed]))
    print_table(header, map(list.__add__, rows, rest))
    print()
    print_workers(api.get("/api/workers"))


def _has_screen() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
