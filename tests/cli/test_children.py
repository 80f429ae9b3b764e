"""The supervisor's grip on one process: started again when it ends, asked before it is killed."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from cli import children
from cli.children import Child

OBEDIENT = "import time; print('up', flush=True); time.sleep(60)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
DYING = "print('up', flush=True); raise SystemExit(3)"


class Watched:
    """A child that notes what it says and lets a test wait for it."""

    def __init__(self, code: str, directory: Path) -> None:
        self.said: asyncio.Queue[str] = asyncio.Queue()
        self.log = directory / "child.log"
        environment = lambda: dict(os.environ)  # noqa: E731  # as short as it needs to be
        self.child = Child("child", [sys.executable, "-c", code], environment, self.log, self.said.put_nowait)

    async def start(self) -> int:
        await self.child.start()
        await self.until_up(1)
        assert self.child.pid is not None
        return self.child.pid

    async def until_up(self, times: int) -> None:
        while self.log.read_text().count("up") < times:
            await asyncio.sleep(0.01)

    async def stop(self, grace: float = 10.0) -> None:
        await self.child.stop(grace, asyncio.Event())


async def test_one_that_was_killed_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "HEALTHY_SECONDS", 0.0)
    watched = Watched(OBEDIENT, tmp_path)
    first = await watched.start()
    os.kill(first, signal.SIGKILL)
    assert await watched.said.get() == f"child (pid {first}) was ended by SIGKILL: starting it again now"
    assert await watched.said.get() == f"child runs again (pid {watched.child.pid})"
    assert watched.child.pid != first
    await watched.stop()
    assert watched.child.pid is None


async def test_one_that_dies_at_once_is_started_ever_more_slowly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "FIRST_BACKOFF_SECONDS", 0.01)
    watched = Watched(DYING, tmp_path)
    await watched.child.start()
    waits = []
    while len(waits) < 3:
        if "starting it again in " in (said := await watched.said.get()):
            waits.append(float(said.rsplit(maxsplit=2)[-2]))
    assert waits == [0.01, 0.02, 0.04]
    await watched.stop()


async def test_stop_ends_the_wait_for_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "FIRST_BACKOFF_SECONDS", 1_000.0)
    monkeypatch.setattr(children, "LONGEST_BACKOFF_SECONDS", 1_000.0)
    watched = Watched(DYING, tmp_path)
    await watched.child.start()
    await watched.said.get()
    await watched.stop(grace=1_000)


async def test_one_that_does_not_listen_is_killed_after_its_grace(tmp_path: Path) -> None:
    watched = Watched(DEAF, tmp_path)
    await watched.start()
    await watched.stop(grace=0.1)
    assert watched.child.pid is None


async def test_hurry_cuts_the_grace_short(tmp_path: Path) -> None:
    watched = Watched(DEAF, tmp_path)
    await watched.start()
    hurry = asyncio.Event()
    stopping = asyncio.create_task(watched.child.stop(1_000, hurry))
    hurry.set()
    await stopping
    assert watched.child.pid is None


async def test_one_that_is_frozen_hears_the_stop_all_the_same(tmp_path: Path) -> None:
    watched = Watched(OBEDIENT, tmp_path)
    os.kill(await watched.start(), signal.SIGSTOP)
    await watched.stop(grace=1_000)


async def test_ctrl_c_in_the_terminal_does_not_reach_it(tmp_path: Path) -> None:
    watched = Watched(OBEDIENT, tmp_path)
    assert os.getpgid(await watched.start()) != os.getpgid(0)
    await watched.stop()


async def test_a_program_that_is_not_there_is_an_error_not_a_loop(tmp_path: Path) -> None:
    child = Child("child", [str(tmp_path / "nothing")], dict, tmp_path / "child.log", lambda _: None)
    with pytest.raises(FileNotFoundError):
        await child.start()
    await child.stop(1, asyncio.Event())
