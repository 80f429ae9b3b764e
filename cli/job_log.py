"""A job's log as it grows: each line once, to the last one that the job ever writes."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

from cli import following
from cli.client import PAGE_ROWS, ApiClient
from jobs.engine.model import TERMINAL


class JobLog:
    """Where in the log we are.

    Lines get their numbers before they are committed, so one may turn up below others that were seen: the last
    page is read again each time, and a line is told from another by its number.
    """

    def __init__(self, api: ApiClient, job_id: UUID) -> None:
        self._api, self._path = api, f"/api/jobs/{job_id}"
        self._page: str | None = None
        self._seen: set[int] = set()

    def follow(self) -> Iterator[dict[str, Any]]:
        """Ends when the job has ended and every line was given."""
        for entry in following.follow(self._api, self._ask, self._listen):
            if entry is None:
                return
            if entry["entryNo"] not in self._seen:
                self._seen.add(entry["entryNo"])
                yield entry

    def _ask(self) -> Iterator[dict[str, Any] | None]:
        """What the log holds; None after it when no more will come, as the job had ended before."""
        has_ended = self._api.get(self._path)["state"] in TERMINAL
        while True:
            page = self._api.get(f"{self._path}/log", after=self._page, limit=PAGE_ROWS)
            yield from page["items"]
            if page["next"] is None:
                break
            self._page = page["next"]
        if has_ended:
            yield None

    def _listen(self) -> Iterator[dict[str, Any]]:
        """Ends when the server sees the job end."""
        for event in self._api.events(f"{self._path}/stream", after=max(self._seen, default=0)):
            if event.name == "log":
                yield event.data
