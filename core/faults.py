"""The one seam by which tests stop, throw, freeze or kill at named points of the code.

`GUTHI_FAULTS="after_batch=kill@3"`: the third time this process comes by `after_batch`, it dies. Several
are separated by commas; without `@n` it happens every time. Never set it outside of tests.
"""

import os
import signal
from collections import Counter
from typing import Final

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
            if action not in {*ACTIONS, "error", "disconnect"}:
                raise ValueError(f"unknown fault {action!r} at {point!r}")
            self._plan[point] = (action, int(nth) if nth else None)

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
        os.kill(os.getpid(), ACTIONS[action])
