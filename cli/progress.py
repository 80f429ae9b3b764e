"""How a command shows something that moves: a bar with rate and time left in a terminal, plain lines elsewhere."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import NamedTuple

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
)
from rich.table import Table
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
ShowEach = Callable[[str, Reading], None]


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
    with display_all(silent=silent, keep_ended=True) as show:
        yield partial(show, title)


@contextmanager
def display_all(*, silent: bool = False, keep_ended: bool = False) -> Iterator[ShowEach]:
    """For many that move at once: call what this gives with the title and the reading of any of them.

    The bar of one that ended is taken away, unless `keep_ended`.
    """
    console = Console()
    if silent:
        yield lambda _title, _reading: None
    elif console.is_terminal and not console.is_dumb_terminal:
        with _bars(console, keep_ended) as show:
            yield show
    else:
        yield _lines()


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        seen = task.completed - task.fields["began_at"]
        average = seen / task.elapsed if task.elapsed else 0
        return Text(f"{task.finished_speed or task.speed or average:,.0f}/s")


class _Left(ProgressColumn):
    def render(self, task: Task) -> Text:
        left = task.time_remaining if task.fields["left"] is None else task.fields["left"]
        return Text("-:--:--" if left is None else str(timedelta(seconds=int(left))))


class _Bars(Progress):
    """The bar takes the width that the figures leave; where that is little, some of them give way to it."""

    def __init__(self, screen: Console) -> None:
        self._screen = screen
        super().__init__(console=screen)

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        width = self._screen.width
        title, state = (TextColumn(f"{{task.{field}}}", markup=False) for field in ("description", "fields[state]"))
        self.columns = (
            title,
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            *([MofNCompleteColumn()] if width >= 72 else []),
            *([_Rate()] if width >= 56 else []),
            *([_Left()] if width >= 46 else []),
            state,
        )
        return super().make_tasks_table(tasks)


@contextmanager
def _bars(console: Console, keep_ended: bool) -> Iterator[ShowEach]:
    with _Bars(console) as bars:
        tasks: dict[str, TaskID] = {}

        def show(title: str, reading: Reading) -> None:
            if title not in tasks:
                tasks[title] = bars.add_task(title, total=None, state="", left=None, began_at=reading.processed)
            bars.update(
                tasks[title],
                completed=reading.processed,
                total=reading.total,
                state=reading.state,
                left=reading.seconds_left,
            )
            if reading.ended and not keep_ended:
                bars.remove_task(tasks.pop(title))

        yield show


def _lines() -> ShowEach:
    """A line whenever a state or another tenth changed, so that a log of it stays short."""
    last: dict[str, tuple[str, int]] = {}

    def show(title: str, reading: Reading) -> None:
        tenth = 10 * reading.processed // reading.total if reading.total else 0
        if (reading.state, tenth) != last.get(title):
            last[title] = (reading.state, tenth)
            print(f"{title}: {reading.state} {reading.processed:,} of {reading.total or 0:,}", flush=True)

    return show
