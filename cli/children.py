"""A process that is started again whenever it ends, until it is asked to stop."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

# A process that lived this long did not die of its start: it is started again at once.
HEALTHY_SECONDS = 5.0
FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 10.0


class Child:
    """Start it with `start`, end it with `stop`; in between `task` keeps it running and ends only with an error.

    `environment` is asked for anew at each start. `changed` is called with a sentence whenever the process ended
    or was started again.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Callable[[], Mapping[str, str]],
        log: Path,
        changed: Callable[[str], None],
    ) -> None:
        self.name = name
        self.task: asyncio.Task[None] | None = None
        self._command, self._environment, self._log, self._changed = command, environment, log, changed
        self._process: asyncio.subprocess.Process | None = None
        self._started_at = 0.0
        self._stopping = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """None while it is not running."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self) -> None:
        await self._spawn()
        self.task = asyncio.create_task(self._keep_running(), name=self.name)

    async def stop(self, grace: float, hurry: asyncio.Event) -> None:
        """Ask with SIGTERM; kill after `grace` seconds, or at once when `hurry` is set. Raises what `task` raised."""
        self._stopping.set()
        self._ask()
        if self.task is None:
            return
        hurried = asyncio.create_task(hurry.wait())
        await asyncio.wait({self.task, hurried}, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if self.pid is not None and self._process is not None:
            self._process.kill()
        await self.task

    async def _keep_running(self) -> None:
        backoff = 0.0
        while True:
            assert self._process is not None
            pid, code = self._process.pid, await self._process.wait()
            if self._stopping.is_set():
                return
            early = time.monotonic() - self._started_at < HEALTHY_SECONDS
            backoff = min(max(2 * backoff, FIRST_BACKOFF_SECONDS), LONGEST_BACKOFF_SECONDS) if early else 0.0
            when = f"in {backoff:g} s" if backoff else "now"
            self._changed(f"{self.name} (pid {pid}) {_ended(code)}: starting it again {when}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), backoff)
                return
            await self._spawn()
            self._changed(f"{self.name} runs again (pid {self.pid})")

    async def _spawn(self) -> None:
        with self._log.open("ab") as log:
            # In a session of its own: a terminal's Ctrl-C is for the supervisor, which stops all in order.
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                env=self._environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._started_at = time.monotonic()
        if self._stopping.is_set():
            self._ask()

    def _ask(self) -> None:
        if self.pid is not None and self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
                # One that somebody froze can only hear it awake.
                self._process.send_signal(signal.SIGCONT)


def _ended(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
