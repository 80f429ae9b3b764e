"""When each maintenance job runs, in UTC: the one table that cron runs by and operators are shown."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from arq.cron import next_cron

from core.settings import Settings


@dataclass(frozen=True, slots=True)
class Schedule:
    """`times` are what arq's cron takes: seconds, minutes and hours at which it runs."""

    description: str
    times: Mapping[str, Any]

    @property
    def words(self) -> str:
        match self.times:
            case {"hour": hour, "minute": minute}:
                return f"daily at {hour:02}:{minute:02} UTC"
            case {"minute": minute}:
                return f"hourly, {minute} minutes past"
            case {"second": set() as seconds}:
                every = sorted(seconds)[1] if len(seconds) > 1 else 60
                return "every second" if every == 1 else f"every {every} seconds"
            case _:
                return "every minute"

    def next_run(self, after: datetime) -> datetime:
        return next_cron(after, **self.times).replace(microsecond=0)


def schedules(settings: Settings) -> Mapping[str, Schedule]:
    """By the names of `MAINTENANCE`. arq's cron does not catch up, so each does whatever is due by then."""
    often = {"second": set(range(0, 60, settings.sweep_seconds))}
    return {
        "sweep": Schedule("rings again for every job that should run and does not", often),
        "relay_events": Schedule("gives committed events their places in the feed", often),
        "make_partitions": Schedule("makes the partitions of the months ahead", {"hour": 0, "minute": 5}),
        "reconcile": Schedule("holds the books against the rows and says what is broken", {"minute": 10}),
        "purge_idempotency_keys": Schedule("forgets stored answers past their time", {"hour": 0, "minute": 20}),
        "purge_sessions": Schedule("forgets sessions of the pages past their time", {"hour": 0, "minute": 25}),
        "purge_job_samples": Schedule("forgets how fast jobs of long ago went", {"hour": 0, "minute": 25}),
        "check_sequences": Schedule("checks that every counter gives a number that is free", {"hour": 0, "minute": 30}),
        "chain_audit": Schedule("gives new audit entries their places in the chain", {"second": 15}),
    }
