"""How a command follows what goes on: over restarts of the API and lost connections, without end.

Whoever follows says how to `ask` for what there is and how to `listen` to what comes. Both begin after what was
already given, so that nothing is missed and nothing told twice; a stream that breaks is bridged by asking.
"""

import os
import select
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeVar

import httpx

from cli.client import AWAY, ApiClient, ApiError
from cli.output import plain

AGAIN_SECONDS = 0.5
# Of one answer, once there was a first: an API that is frozen shall be told of.
ANSWER_SECONDS = 10
BACK = "the API is back"
# What a shell shows for a command that SIGPIPE has ended.
NO_READER = 141

Item = TypeVar("Item")


def follow(
    api: ApiClient,
    ask: Callable[[], Iterator[Item]],
    listen: Callable[[], Iterator[Item]],
    say: Callable[[str], None] | None = None,
) -> Iterator[Item]:
    """What `ask` gives, then what `listen` gives as it comes; it ends when its consumer has seen enough.

    Faults of the first answer are raised when the client's patience is over. From then on it waits for as long as
    it takes, and `say` is told when the API is away and when it is back; only a refusal is raised.
    """
    yield from ask()
    patience, api.patience = api.patience, 0
    api.http.timeout = httpx.Timeout(ANSWER_SECONDS)
    try:
        while True:
            with suppress(httpx.TransportError, ApiError, ValueError):  # what it means is seen by asking
                yield from listen()
            time.sleep(AGAIN_SECONDS)
            yield from _ask_until_answered(ask, say or tell)
    finally:
        api.patience = patience


def _ask_until_answered(ask: Callable[[], Iterator[Item]], say: Callable[[str], None]) -> Iterator[Item]:
    is_away = False
    while True:
        pause = AGAIN_SECONDS
        try:
            for item in ask():
                if is_away:
                    say(BACK)
                    is_away = False
                yield item
        except AWAY as error:
            reason = str(error) or type(error).__name__
        except ApiError as error:
            if not error.is_passing:
                raise
            reason, pause = str(error), max(pause, error.pause)
        else:
            if is_away:
                say(BACK)
            return
        if not is_away:
            say(f"the API is away, waiting for it: {reason}")
            is_away = True
        time.sleep(pause)


def tell(message: str) -> None:
    """One line beside the output."""
    print(f"guthi: {plain(message)}", file=sys.stderr, flush=True)


def end_with_reader() -> None:
    """From now on the process ends with whoever reads its output, as with `| head -1`, also while it is silent."""
    if stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode):
        threading.Thread(target=_wait_for_reader, daemon=True).start()


def _wait_for_reader() -> None:
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # that the other side is gone is told unasked
    poll.poll()
    os._exit(NO_READER)
