"""How a command shows something that moves: a bar with rate and time left in a terminal, plain lines elsewhere."""

import threading
from collections.abc import Callable
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

POLL_SECONDS = 0.1


class Reading(NamedTuple):
    """One look at it. `total` is None until it is known; `ended` says that no further look is needed."""

    state: str
    processed: int
    total: int | None
    ended: bool


def follow(title: str, read: Callable[[], Reading], stopped: threading.Event | None = None) -> Reading:
    """Look again and again until it ended, or `stopped` is set; returns the last reading."""
    stopped = stopped or threading.Event()
    console = Console()
    return (_draw if console.is_terminal else _write)(console, title, read, stopped)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:,.0f}/s")


def _draw(console: Console, title: str, read: Callable[[], Reading], stopped: threading.Event) -> Reading:
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn()]
    with Progress(*columns, TextColumn("{task.fields[state]}"), console=console) as bar:
        task = bar.add_task(title, total=None, state="")
        while True:
            reading = read()
            bar.update(task, completed=reading.processed, total=reading.total, state=reading.state)
            if reading.ended or stopped.wait(POLL_SECONDS):
                return reading


def _write(_console: Console, title: str, read: Callable[[], Reading], stopped: threading.Event) -> Reading:
    """A line whenever the state or another tenth changed, so that a log of it stays short."""
    last = None
    while True:
        reading = read()
        tenth = 10 * reading.processed // reading.total if reading.total else 0
        if (reading.state, tenth) != last:
            last = (reading.state, tenth)
            print(f"{title}: {reading.state} {reading.processed:,} of {reading.total or 0:,}", flush=True)
        if reading.ended or stopped.wait(POLL_SECONDS):
            return reading
