"""The society's jobs that have not ended, as they move: what `guthi cycles watch --all` and `guthi top` show."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from cli import following
from cli.client import ApiClient
from jobs.engine.model import TERMINAL

PATH = "/api/jobs"
SUMMARY = (
    "jobId",
    "kind",
    "subjectId",
    "subjectCode",
    "state",
    "processed",
    "total",
    "percentage",
    "rate",
    "estimatedTimeRemaining",
    "createdBy",
    "createdByName",
    "createdAt",
    "startedAt",
    "shards",
    "allowed",
    "error",
)
SHARD = ("shardNo", "processed", "done", "leased", "leaseHolder")

Job = dict[str, Any]


class RunningJobs:
    """What is known of them. Both ways of learning give the same: a summary, as `/api/jobs/stream` has it."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api
        self._known: dict[str, Job] = {}

    def changes(self, say: Callable[[str], None] | None = None) -> Iterator[list[Job]]:
        """First all that there are, then the changed ones whenever something changed, without end.

        A job that ended is among them once more, with its last state, also when it ended while nobody listened.
        """
        for jobs in following.follow(self._api, self._ask, self._listen, say):
            yield [job for job in jobs if self._learn(job)]

    def _learn(self, job: Job) -> bool:
        """Whether it is news. An end always is: a quick job may have had no other state that we saw."""
        if job["state"] in TERMINAL:
            self._known.pop(job["jobId"], None)
            return True
        is_new = self._known.get(job["jobId"]) != job
        self._known[job["jobId"]] = job
        return is_new

    def _ask(self) -> Iterator[list[Job]]:
        yield self._with_ended(reversed([*self._api.items(PATH, unfinished=True)]))  # oldest first

    def _listen(self) -> Iterator[list[Job]]:
        events = (event.data["items"] for event in self._api.events(f"{PATH}/stream") if event.name == "jobs")
        if (first := next(events, None)) is not None:
            yield self._with_ended(first)
        for items in events:
            yield [summary_of(job) for job in items]

    def _with_ended(self, unfinished: Iterable[Job]) -> list[Job]:
        """With those that were running when we last looked, and are not among `unfinished` now."""
        jobs = [summary_of(job) for job in unfinished]
        missing = self._known.keys() - {job["jobId"] for job in jobs}
        return jobs + [summary_of(self._api.get(f"{PATH}/{job_id}")) for job_id in missing]


def summary_of(job: Job) -> Job:
    shards = [{name: shard[name] for name in SHARD} for shard in job["shards"]]
    return {name: job[name] for name in SUMMARY} | {"shards": shards}
