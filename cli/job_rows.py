"""A job in a few words and figures, and the order in which jobs are looked at."""

from collections.abc import Iterable
from typing import Any

from cli.output import plain
from jobs.create_contributions import CreateContributions

FAILED_JOBS = 20
"""The newest failed jobs that are shown beside the running ones."""
NONE = "-"

_ORDER = {"Processing": 0, "Queued": 0, "Paused": 1, "Failed": 2, "Completed": 3, "Cancelled": 3}

Job = dict[str, Any]


def in_order(jobs: Iterable[Job]) -> list[Job]:
    """What moves first, then what waits for a hand, then what is over; in each the newest last. Rows jump little."""
    return sorted(jobs, key=lambda job: (_ORDER.get(job["state"], 3), job["createdAt"], job["jobId"]))


def label_of(job: Job) -> str:
    """`CC-2026-00001` for the work that makes a cycle, `notify agents new cycle CC-2026-00001` for other work on it."""
    code, kind = plain(job["subjectCode"]), plain(job["kind"]).replace("_", " ")
    if job["subjectCode"] is None:
        return kind
    return code if job["kind"] == CreateContributions.name else f"{kind} {code}"


def done_of(job: Job) -> str:
    return f"{job['percentage']}%"


def rows_of(job: Job) -> str:
    return f"{job['processed']:,}" + ("" if job["total"] is None else f"/{job['total']:,}")


def rate_of(job: Job) -> str:
    return f"{job['rate']:,.0f}/s" if job["state"] == "Processing" else NONE


def left_of(job: Job) -> str:
    """Time left as h:mm:ss, for what moves."""
    seconds = job["estimatedTimeRemaining"]
    if seconds is None or job["state"] not in ("Processing", "Queued"):
        return NONE
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
