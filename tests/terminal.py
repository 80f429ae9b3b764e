"""A command in a real terminal: keys go in, and the screen is read as a person sees it."""

import asyncio
import signal
import sys
from collections.abc import Callable, Mapping

import pexpect
import pyte

from tests.support import ROOT, clean_environment


class Terminal:
    """`until` waits for what the screen shows; `raw` is every byte that the command ever wrote to it."""

    def __init__(
        self, arguments: tuple[str, ...], environment: Mapping[str, str], columns: int = 80, rows: int = 24
    ) -> None:
        clean = clean_environment()
        clean |= {"TERM": "xterm-256color", **environment}
        command = ["-m", "cli.main", *arguments]
        self._spawned = pexpect.spawn(sys.executable, command, cwd=ROOT, env=clean, dimensions=(rows, columns))
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self.raw = b""

    @property
    def shown(self) -> str:
        """The screen's lines."""
        return "\n".join(line.rstrip() for line in self._screen.display)

    async def until(self, *texts: str, without: str = "", seconds: float = 60) -> None:
        """Waits until the screen shows all of `texts`, and not `without`."""

        def is_there() -> bool:
            return all(text in self.shown for text in texts) and not (without and without in self.shown)

        await self._read_until(is_there, f"{texts} without {without!r}", seconds)

    def press(self, keys: str) -> None:
        self._spawned.send(keys)

    def resize(self, columns: int, rows: int) -> None:
        self._screen.resize(rows, columns)
        self._spawned.setwinsize(rows, columns)

    async def ended(self, seconds: float = 60) -> int:
        """Its exit code, once it has one."""
        async with asyncio.timeout(seconds):
            while await asyncio.to_thread(self._read):
                pass
        await asyncio.to_thread(self._spawned.wait)
        assert self._spawned.exitstatus is not None, f"ended by signal {self._spawned.signalstatus}"
        return self._spawned.exitstatus

    def send(self, number: signal.Signals) -> None:
        self._spawned.kill(number)

    def kill(self) -> None:
        """Fine when it has ended already."""
        self._spawned.kill(signal.SIGKILL)
        self._spawned.close()

    async def _read_until(self, fact: Callable[[], bool], what: str, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not fact():
                    assert await asyncio.to_thread(self._read), f"ended without {what}:\n{self.shown}"
        except TimeoutError:
            raise AssertionError(f"waited {seconds} s for {what}; the screen is\n{self.shown}") from None

    def _read(self) -> bool:
        """False at the end."""
        try:
            chunk = self._spawned.read_nonblocking(65_536, timeout=0.2)
        except pexpect.TIMEOUT:
            return True
        except pexpect.EOF:
            return False
        self.raw += chunk
        self._stream.feed(chunk)
        return True
