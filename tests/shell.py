"""The `guthi` command as an operator's shell runs it: with its output in a pipe, or with a terminal."""

import asyncio
import os
import subprocess
import sys
import termios
from collections.abc import Mapping
from typing import NamedTuple

from tests.support import ROOT, clean_environment
from tests.terminal import Terminal

ESCAPE = "\x1b"


class Done(NamedTuple):
    """What is left of a command that has ended."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """Its one line on stderr, given that it did nothing."""
        assert (self.code, self.out) == (2, "") and self.err.startswith("guthi: "), self
        assert self.err.count("\n") == 1, self.err
        return self.err


class Command:
    """One that runs. `until` reads its output up to what a test waits for; `ended` reads the rest."""

    def __init__(self, arguments: tuple[str, ...], environment: Mapping[str, str], columns: int = 0) -> None:
        """With `columns` it has a terminal of that width, for its errors as well; without, a pipe for each."""
        self._out, its_out = os.openpty() if columns else os.pipe()
        if columns:
            termios.tcsetwinsize(its_out, (24, columns))
        self.seen = b""
        clean = clean_environment()
        clean |= {"TERM": "xterm-256color", **environment}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", *arguments],
            cwd=ROOT,
            env=clean,
            stdin=subprocess.DEVNULL,
            stdout=its_out,
            stderr=its_out if columns else subprocess.PIPE,
        )
        os.close(its_out)

    async def until(self, text: str, seconds: float = 60) -> None:
        try:
            async with asyncio.timeout(seconds):
                while text.encode() not in self.seen:
                    assert await self._read(), f"ended without {text!r}: {self.seen.decode()}{self._errors()}"
        except TimeoutError:
            raise AssertionError(f"not within {seconds} s {text!r}: {self.seen.decode()}") from None

    async def until_complaint(self, text: str, seconds: float = 60) -> str:
        """The next line on stderr, which holds `text`."""
        assert self.process.stderr is not None
        line = await asyncio.wait_for(asyncio.to_thread(self.process.stderr.readline), seconds)
        assert text in line.decode(), line
        return line.decode()

    def close_output(self) -> None:
        """From now on nobody reads what it prints."""
        os.close(self._out)
        self._out = os.open(os.devnull, os.O_RDONLY)

    async def ended(self, seconds: float = 60) -> Done:
        async with asyncio.timeout(seconds):
            while await self._read():
                pass
            errors = await asyncio.to_thread(self._errors)
            return Done(await asyncio.to_thread(self.process.wait), self.seen.decode(), errors)

    def kill(self) -> None:
        """Fine when it has ended already."""
        self.process.kill()
        self.process.wait()
        os.close(self._out)
        if self.process.stderr is not None:
            self.process.stderr.close()

    async def _read(self) -> bool:
        try:
            chunk = await asyncio.to_thread(os.read, self._out, 65_536)
        except OSError:  # how a terminal says that its other side is gone
            return False
        self.seen += chunk
        return bool(chunk)

    def _errors(self) -> str:
        return self.process.stderr.read().decode() if self.process.stderr is not None else ""


class Shell:
    """Its variables are those that every command gets."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.variables = dict(variables)
        self._commands: list[Command | Terminal] = []

    def start(self, *arguments: str, columns: int = 0, **variables: str) -> Command:
        command = Command(arguments, {**self.variables, **variables}, columns)
        self._commands.append(command)
        return command

    def open_terminal(self, *arguments: str, columns: int = 80, rows: int = 24, **variables: str) -> Terminal:
        """The command in a terminal that a test may type into."""
        terminal = Terminal(arguments, {**self.variables, **variables}, columns, rows)
        self._commands.append(terminal)
        return terminal

    async def run(self, *arguments: str, **variables: str) -> Done:
        return await self.start(*arguments, columns=0, **variables).ended()

    def close(self) -> None:
        for command in self._commands:
            command.kill()
