"""What the shell offers when an operator presses the tab key: fixed words, and what the API knows.

It never complains and never makes anybody wait: without an answer in time there is nothing to offer.
"""

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice
from typing import Any

from cli.client import ApiClient, open_api
from cli.job_rows import done_of, label_of
from cli.output import plain
from domain.states import CYCLE_BEGINS, CYCLE_TRANSITIONS
from jobs.engine.model import JobState
from jobs.kinds import KINDS
from jobs.maintenance import MAINTENANCE

ANSWER_SECONDS = 0.4
OFFERS = 50

Offers = Iterable[tuple[str, str]]
Completer = Callable[[str], list[tuple[str, str]]]
"""From what is typed so far to the words that begin so, each with its meaning, which zsh and fish show."""


def from_words(words: Iterable[str]) -> Completer:
    """A fixed set of words."""
    known = tuple(words)

    def complete(incomplete: str) -> list[tuple[str, str]]:
        return [(word, "") for word in known if word.startswith(incomplete)]

    return complete


def from_api(ask: Callable[[ApiClient], Offers]) -> Completer:
    """What the API has, if it answers in time."""

    def complete(incomplete: str) -> list[tuple[str, str]]:
        offered: list[tuple[str, str]] = []
        # A thread that may be left behind: no timeout of a socket bounds the whole of an answer.
        asking = threading.Thread(target=_ask, args=(ask, offered), daemon=True)
        asking.start()
        asking.join(ANSWER_SECONDS)
        return [(word, meaning) for word, meaning in list(offered) if word.startswith(incomplete)]

    return complete


def _ask(ask: Callable[[ApiClient], Offers], offered: list[tuple[str, str]]) -> None:
    with suppress(Exception), open_api() as api:  # a half-typed line is no place for a complaint
        api.patience = 0
        offered.extend((plain(word), plain(meaning)) for word, meaning in islice(ask(api), OFFERS))


def jobs_that(**query: Any) -> Completer:
    """Ids of jobs, newest first: `jobs_that(state="Failed")`."""

    def ask(api: ApiClient) -> Offers:
        jobs = api.get("/api/jobs", limit=OFFERS, **query)["items"]
        return ((job["jobId"], f"{label_of(job)} {job['state']} {done_of(job)}") for job in jobs)

    return from_api(ask)


def _cycles(api: ApiClient) -> Offers:
    cycles = api.get("/api/contribution-cycles", limit=OFFERS)["items"]
    return ((cycle["cycleCode"], cycle["cycleStatus"]) for cycle in cycles)


def _tiers(api: ApiClient) -> Offers:
    return ((tier["code"], tier["name"]) for tier in api.items("/api/tiers"))


cycle_codes = from_api(_cycles)
tier_codes = from_api(_tiers)
job_states = from_words(JobState)
job_kinds = from_words(kind.name for kind in KINDS)
cycle_statuses = from_words(dict.fromkeys([*CYCLE_BEGINS, *(state for arrow in CYCLE_TRANSITIONS for state in arrow)]))
maintenance_names = from_words(MAINTENANCE)
