"""The society's jobs that have not ended, as they move: what `guthi cycles watch --all` and `guthi top` show."""

from collections.abc import Callable, Iterable, Iterator
from itertools import takewhile
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
        self._ended: dict[str, str] = {}
        self._newest: str | None = None

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
            self._newest = max(self._newest or "", job["jobId"])
            is_told = self._ended.get(job["jobId"]) == job["state"]
            self._ended[job["jobId"]] = job["state"]
            return not is_told
        self._ended.pop(job["jobId"], None)
        is_new = self._known.get(job["jobId"]) != job
        self._known[job["jobId"]] = job
        return is_new

    def _ask(self) -> Iterator[list[Job]]:
        if self._newest is None:
            newest = self._api.get(PATH, limit=1)["items"]
            self._newest = newest[0]["jobId"] if newest else ""
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
        seen = {job["jobId"] for job in jobs}
        missed = [self._api.get(f"{PATH}/{job_id}") for job_id in self._known.keys() - seen]
        if self._newest is not None:  # ids grow: those above it are new, and some may have ended already
            newest = self._newest
            new = takewhile(lambda job: job["jobId"] > newest, self._api.items(PATH))
            missed += [job for job in new if job["jobId"] not in seen | self._known.keys()]
        jobs += [summary_of(job) for job in missed]
        self._newest = max([self._newest or "", *(job["jobId"] for job in jobs)])
        return jobs


def summary_of(job: Job) -> Job:
    shards = [{name: shard[name] for name in SHARD} for shard in job["shards"]]
    return {name: job[name] for name in SUMMARY} | {"shards": shards}
