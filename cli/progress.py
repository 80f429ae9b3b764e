"""How a command shows something that moves: a bar with rate and time left in a terminal, plain lines elsewhere."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
)
from rich.text import Text

POLL_SECONDS = 0.1


class Reading(NamedTuple):
    """One look at it. `total` is None until it is known; `ended` says that no further look is needed.

    `seconds_left` is None when whoever is asked does not know: then it is guessed from what was seen.
    """

    state: str
    processed: int
    total: int | None
    ended: bool
    seconds_left: int | None = None


Show = Callable[[Reading], None]


def follow(
    title: str, read: Callable[[], Reading], stopped: threading.Event | None = None, *, silent: bool = False
) -> Reading:
    """Look again and again until it ended, or `stopped` is set; returns the last reading."""
    stopped = stopped or threading.Event()
    with display(title, silent=silent) as show:
        while True:
            reading = read()
            show(reading)
            if reading.ended or stopped.wait(POLL_SECONDS):
                return reading


@contextmanager
def display(title: str, *, silent: bool = False) -> Iterator[Show]:
    """For what tells by itself when it moved: call what this gives with each reading."""
    console = Console()
    if silent:
        yield lambda _: None
    elif console.is_terminal and not console.is_dumb_terminal:
        with _bar(console, title) as show:
            yield show
    else:
        yield _lines(title)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        seen = task.completed - (task.fields["began_at"] or 0)
        average = seen / task.elapsed if task.elapsed else 0
        return Text(f"{task.finished_speed or task.speed or average:,.0f}/s")


class _Left(ProgressColumn):
    def render(self, task: Task) -> Text:
        left = task.time_remaining if task.fields["left"] is None else task.fields["left"]
        return Text("-:--:--" if left is None else str(timedelta(seconds=int(left))))


@contextmanager
def _bar(console: Console, title: str) -> Iterator[Show]:
    # The bar takes the width that the figures leave.
    columns = [BarColumn(bar_width=None), TaskProgressColumn(), MofNCompleteColumn(), _Rate(), _Left()]
    state = TextColumn("{task.fields[state]}", markup=False)
    with Progress(TextColumn("{task.description}", markup=False), *columns, state, console=console) as bar:
        task = bar.add_task(title, total=None, state="", left=None, began_at=None)
        began_at: int | None = None

        def show(reading: Reading) -> None:
            nonlocal began_at
            began_at = reading.processed if began_at is None else began_at
            bar.update(
                task,
                completed=reading.processed,
                total=reading.total,
                state=reading.state,
                left=reading.seconds_left,
                began_at=began_at,
            )

        yield show


def _lines(title: str) -> Show:
    """A line whenever the state or another tenth changed, so that a log of it stays short."""
    last: tuple[str, int] | None = None

    def show(reading: Reading) -> None:
        nonlocal last
        tenth = 10 * reading.processed // reading.total if reading.total else 0
        if (reading.state, tenth) != last:
            last = (reading.state, tenth)
            print(f"{title}: {reading.state} {reading.processed:,} of {reading.total or 0:,}", flush=True)

    return show
