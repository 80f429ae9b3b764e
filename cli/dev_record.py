"""What `guthi dev` keeps in its data directory: the lock, `dev.json`, and `env` with the same for a shell."""

import fcntl
import json
import os
import secrets
import shlex
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TextIO

import psutil

from core.errors import GuthiError

# How long what a killed `dev` left behind gets to end by itself.
LEFTOVER_SECONDS = 5


class DevError(GuthiError):
    """`guthi dev` cannot start, or lost what it cannot do without; everything it had started was stopped."""


@dataclass
class Pids:
    """None and an empty list: not running."""

    api: int | None = None
    workers: list[int] = field(default_factory=list)
    postgres: int | None = None
    valkey: int | None = None


@dataclass
class DevRecord:
    """`dev.json`: where everything is, and the key that opens it. Complete once `ready` was printed."""

    api_url: str = ""
    database_url: str = ""
    admin_database_url: str = ""
    redis_url: str = ""
    tenant_id: str = ""
    api_key: str = ""
    pids: Pids = field(default_factory=Pids)

    @classmethod
    def load(cls, directory: Path) -> "DevRecord":
        """What an earlier run wrote; an empty record where there is none, or none that can be read."""
        try:
            values = json.loads((directory / "dev.json").read_text())
            return cls(**{**values, "pids": Pids(**values["pids"])})
        except (OSError, ValueError, TypeError, KeyError):
            return cls()

    def save(self, directory: Path) -> None:
        """Readers see the old file or the new one, never half of one; nobody else may read the key."""
        _write_private(directory / "dev.json", json.dumps(asdict(self), indent=2) + "\n")
        exports = [f"export {name}={shlex.quote(value)}\n" for name, value in self.variables().items()]
        _write_private(directory / "env", "".join(exports))

    def variables(self) -> dict[str, str]:
        return {
            "GUTHI_API_URL": self.api_url,
            "GUTHI_API_KEY": self.api_key,
            "GUTHI_DATABASE_URL": self.database_url,
            "GUTHI_ADMIN_DATABASE_URL": self.admin_database_url,
            "GUTHI_REDIS_URL": self.redis_url,
        }


def session_secret(directory: Path) -> str:
    """Signs the pages' cookies: kept, so that who is signed in stays so when the API is started again."""
    file = directory / "session_secret"
    if not file.exists():
        _write_private(file, secrets.token_hex(32))
    return file.read_text()


def lock(directory: Path) -> TextIO:
    """Keep the answer open as long as `directory` is in use; raises `DevError` when another `dev` has it."""
    file = (directory / "dev.lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip()
        file.close()
        raise DevError(f"another guthi dev (pid {holder}) runs on {directory}") from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def stop_leftovers(record: DevRecord, valkey_dir: Path) -> list[int]:
    """End what a killed `dev` left running, and return its pids. PostgreSQL stays: it is adopted.

    A pid says little by itself: only a process that still is what the record says is touched.
    """
    pids = record.pids
    leftovers = [p for p in map(_process, [pids.api, *pids.workers]) if p and _serves(p, record.database_url)]
    leftovers += [p for p in [_process(pids.valkey)] if p and _works_in(p, valkey_dir)]
    for process in leftovers:
        process.terminate()
    _, stubborn = psutil.wait_procs(leftovers, timeout=LEFTOVER_SECONDS)
    for process in stubborn:
        process.kill()
    psutil.wait_procs(stubborn, timeout=LEFTOVER_SECONDS)
    return [process.pid for process in leftovers]


def _process(pid: int | None) -> psutil.Process | None:
    try:
        process = psutil.Process(pid) if pid else None
        return process if process and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def _serves(process: psutil.Process, database_url: str) -> bool:
    try:
        return "cli.main" in process.cmdline() and process.environ().get("GUTHI_DATABASE_URL") == database_url
    except psutil.Error:
        return False


def _works_in(process: psutil.Process, directory: Path) -> bool:
    """Valkey goes to its directory, and rewrites the command line that named it."""
    try:
        return Path(process.cwd()) == directory
    except psutil.Error:
        return False


def _write_private(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    new.replace(path)
