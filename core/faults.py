"""The one seam by which tests stop, throw, freeze or kill at named points of the code.

`GUTHI_FAULTS="after_batch=kill@3"`: the third time this process comes by `after_batch`, it dies. Several
are separated by commas; without `@n` it happens every time. Never set it outside of tests.

Every call to PostgreSQL and Redis is such a point, by its name in `core.calls`: `sql:advance_shard=kill@3` dies
before the third of them is made, `after_sql:advance_shard=kill@3` once it was answered. `call` is any of them.
"""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

ACTIONS: Final = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP, "terminate": signal.SIGTERM}


class InjectedError(Exception):
    """Thrown by the action `error`: no retry helps, like a defect."""


class InjectedConnectionError(ConnectionError):
    """Thrown by the action `disconnect`: transient, like a cut session."""


class Faults:
    """Parsed once at start-up; `reach` costs a dictionary look-up where nothing is set."""

    def __init__(self, plan: str = "") -> None:
        """Raises `ValueError` for an action that does not exist."""
        self._plan: dict[str, tuple[str, int | None]] = {}
        self._seen: Counter[str] = Counter()
        for part in filter(None, plan.split(",")):
            point, _, action = part.partition("=")
            action, _, nth = action.partition("@")
            if action not in {*ACTIONS, "error", "disconnect", "cancel"}:
                raise ValueError(f"unknown fault {action!r} at {point!r}")
            self._plan[point] = (action, int(nth) if nth else None)

    @property
    def at_calls(self) -> bool:
        """Whether anything was planned for calls: then `around` must be given to `core.calls.intercept`."""
        return any(point.removeprefix("after_").startswith(("call", "sql:", "redis:")) for point in self._plan)

    async def around(self, name: str, act: Callable[[], Awaitable[Any]]) -> Any:
        """An interceptor: a point before the call and one after it, for its name and for any."""
        self.reach("call")
        self.reach(name)
        answer = await act()
        self.reach("after_call")
        self.reach(f"after_{name}")
        return answer

    def reach(self, point: str) -> None:
        """Do what was planned for `point`, if anything was."""
        if point not in self._plan:
            return
        action, nth = self._plan[point]
        self._seen[point] += 1
        if nth is not None and self._seen[point] != nth:
            return
        if action == "error":
            raise InjectedError(f"injected at {point}")
        if action == "disconnect":
            raise InjectedConnectionError(f"injected at {point}")
        if action == "cancel":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            return
        os.kill(os.getpid(), ACTIONS[action])
