"""Following something that moves: plain lines outside a terminal, a bar in one, and an end to both."""

import threading
from collections.abc import Callable, Iterator

import pytest
from rich.console import Console

from cli import progress
from cli.progress import Reading, follow


def readings(*values: Reading) -> Callable[[], Reading]:
    left: Iterator[Reading] = iter(values)
    return lambda: next(left)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "POLL_SECONDS", 0)


def test_a_line_for_each_state_and_tenth_and_no_colours(capsys: pytest.CaptureFixture[str]) -> None:
    moving = [Reading("Processing", done, 1_000, False) for done in (0, 50, 99, 100, 101, 950)]
    end = Reading("Completed", 1_000, 1_000, True)
    assert follow("rows", readings(Reading("Queued", 0, None, False), *moving, end)) == end
    assert capsys.readouterr().out.splitlines() == [
        "rows: Queued 0 of 0",
        "rows: Processing 0 of 1,000",
        "rows: Processing 100 of 1,000",
        "rows: Processing 950 of 1,000",
        "rows: Completed 1,000 of 1,000",
    ]


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "Console", lambda: Console(force_terminal=True, width=100))
    end = Reading("Active", 5_000, 5_000, True)
    assert follow("rows", readings(Reading("Initializing", 0, None, False), end)) == end
    drawn = capsys.readouterr().out
    assert "5000/5000" in drawn and "Active" in drawn and "━" in drawn


def test_it_ends_when_it_is_stopped() -> None:
    stopped = threading.Event()
    stopped.set()
    assert follow("rows", readings(Reading("Queued", 0, None, False)), stopped).state == "Queued"
