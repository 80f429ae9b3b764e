"""Each event is emitted once; logs, metrics and traces subscribe to it.

An event is a name in snake_case and fields: `emit("batch_done", rows=5000, seconds=0.02)`. The fields
every event of a run shares (`tenant_id`, `job_id`, `shard_no`, `attempt`) are bound once, with `bound`.
"""

from collections.abc import Callable
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
