"""Each event is emitted once; logs, metrics and traces subscribe to it.

An event is a name in snake_case and fields: `emit("batch_done", rows=5000, seconds=0.02)`. The fields
every event of a run shares (`tenant_id`, `job_id`, `shard_no`, `attempt`) are bound once, with `bound`.
What others happen inside of has two: `with lasting("shard_run"): …` emits `shard_run_began` and `shard_run_ended`.
"""

import contextlib
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import structlog

Subscriber = Callable[[str, dict[str, Any]], None]

_subscribers: list[Subscriber] = []
bound = structlog.contextvars.bound_contextvars


def subscribe(subscriber: Subscriber) -> None:
    """From now on `subscriber(event, fields)` sees every event of this process."""
    _subscribers.append(subscriber)


def emit(event: str, /, **fields: Any) -> None:
    for subscriber in _subscribers:
        subscriber(event, fields)


@contextlib.contextmanager
def lasting(name: str, /, **fields: Any) -> Iterator[dict[str, Any]]:
    """The second event has `seconds`, and what the block put into the fields, however the block ends."""
    started = perf_counter()
    emit(f"{name}_began", **fields)
    try:
        yield fields
    finally:
        emit(f"{name}_ended", seconds=perf_counter() - started, **fields)
