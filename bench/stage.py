"""What every measurement stands on: embedded servers, a real API process, real workers, a client with a clock."""

import asyncio
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self
from uuid import UUID, uuid4

import asyncpg
import psutil
import redis.asyncio

from core.settings import Settings
from db.embedded import EmbeddedPostgres, EmbeddedValkey, free_port
from db.migrate import migrate
from tests.support import Society, make_society

CYCLES = "/api/contribution-cycles"
WORK = "contributions, notifications, contribution_cycles, batch_jobs, batch_job_shards, batch_job_log, events"


class Process:
    """A process of our own with default settings; its output is in `log`."""

    def __init__(self, log: Path, environment: dict[str, str], *command: str, stdin: int = subprocess.DEVNULL) -> None:
        self.log = log
        # Only what is given: neither the caller's GUTHI_* variables nor an .env decide what is measured.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("GUTHI_")}
        with log.open("w") as output:
            self._process = subprocess.Popen(
                command,
                cwd=log.parent,
                env={**inherited, **environment},
                stdin=stdin,
                stdout=output,
                stderr=output,
                start_new_session=True,
                text=True,
            )
        self.pid = self._process.pid

    async def says(self, word: str) -> None:
        """Waits until its output holds `word`."""
        while word not in self.log.read_text():
            if self._process.poll() is not None:
                raise RuntimeError(f"{self._process.args!r} ended: {self.log.read_text()[-2_000:]}")
            await asyncio.sleep(0.01)

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def write(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text)
        self._process.stdin.flush()

    def poll(self) -> int | None:
        return self._process.poll()

    def wait(self, seconds: float) -> int:
        return self._process.wait(seconds)

    def kill_group(self) -> None:
        """SIGKILL, for it and for what it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def events(self, name: str) -> list[dict[str, Any]]:
        """The lines of its log that tell of this event."""
        lines = (line for line in self.log.read_text().splitlines() if f'"{name}"' in line)
        return [entry for entry in map(json.loads, lines) if entry["event"] == name]

    def stop(self) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Stage:
    """Servers and one API. Workers come and go with each measurement: `async with stage.workers(2)`."""

    def __init__(self) -> None:
        self._dir = Path(tempfile.mkdtemp(prefix="gb", dir="/tmp"))  # short: a socket lies in it
        self.postgres = EmbeddedPostgres(self._dir / "p")
        self.valkey = EmbeddedValkey(self._dir / "v")
        self.port = free_port()
        self.set_up: set[str] = set()
        """Peers whose own tables exist here."""
        self._started = 0
        self._processes: list[Process] = []

    async def __aenter__(self) -> Self:
        self.postgres.start()
        self.valkey.start()
        migrate(self.postgres.admin_url)
        self.settings = Settings(
            _env_file=None,
            database_url=self.postgres.app_url,
            admin_database_url=self.postgres.admin_url,
            redis_url=self.valkey.url,
        )
        self.owner = await asyncpg.connect(self.postgres.admin_url)
        self.superuser = await asyncpg.connect(self.postgres.superuser_url, database="guthi")
        self.redis = redis.asyncio.from_url(self.valkey.url)
        self.api = self.start("-m", "cli.main", "api", "--port", str(self.port))
        while not await self._answers():
            await asyncio.sleep(0.05)
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.stop()
        self.valkey.stop()
        self.postgres.stop(mode="immediate")
        shutil.rmtree(self._dir)

    def start(self, *command: str, **environment: str) -> Process:
        known = {
            "GUTHI_DATABASE_URL": self.settings.database_url,
            "GUTHI_ADMIN_DATABASE_URL": self.settings.admin_database_url,
            "GUTHI_REDIS_URL": self.settings.redis_url,
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }
        return self.start_program(sys.executable, *command, environment={**known, **environment})

    def start_program(self, *command: str, environment: dict[str, str], stdin: int = subprocess.DEVNULL) -> Process:
        self._started += 1
        process = Process(self._dir / f"{self._started}.log", environment, *command, stdin=stdin)
        self._processes.append(process)
        return process

    @asynccontextmanager
    async def workers(self, count: int, **environment: str) -> AsyncIterator[Sequence[Process]]:
        started = [self.start("-m", "cli.main", "worker", **environment) for _ in range(count)]
        try:
            for worker in started:
                await worker.says("worker_started")
            await asyncio.sleep(1)
            yield started
        finally:
            for worker in started:
                worker.stop()

    async def society(self, members: int, prefix: str) -> Society:
        """Its rows go in without the checks and the audit of each, which take longer than much of what is measured."""
        await self._triggers("DISABLE")
        society = await make_society(self.owner, members, prefix=prefix, agents=20, events=False)
        await self._triggers("ENABLE")
        await self.superuser.execute("CHECKPOINT")
        await self.owner.execute("VACUUM ANALYZE members, tier_memberships")
        return society

    async def _triggers(self, verb: str) -> None:
        for table in ("members", "tier_memberships"):
            await self.superuser.execute(f"ALTER TABLE {table} {verb} TRIGGER ALL")

    async def settled(self) -> None:
        """Once no job is left that could run."""
        while await self.owner.fetchval("SELECT count(*) FROM batch_jobs WHERE state IN ('Queued', 'Processing')"):
            await asyncio.sleep(0.05)

    async def clear(self) -> None:
        """Forget every cycle, once all work is done: what follows finds empty tables and nothing unwritten."""
        await self.settled()
        tables = await self.owner.fetchval(
            "SELECT string_agg(relname, ', ') FROM pg_class WHERE relname ~ '^bench_' AND relkind = 'r'"
        )
        await self.owner.execute(f"TRUNCATE {WORK}, idempotency_keys, counters{', ' + tables if tables else ''}")
        await self.superuser.execute("CHECKPOINT")

    async def _answers(self) -> bool:
        with suppress(OSError):
            return Client(self.port, "").call("GET", "/readyz")[0] == 200
        return False


def children_of(pid: int) -> list[int]:
    with suppress(psutil.NoSuchProcess):
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    return []


class Client:
    """One connection to the API, with a society's key. Blocking: nothing else runs while it asks."""

    KEPT_OPEN_SECONDS = 3
    """Less than the API keeps an idle connection open."""

    def __init__(self, port: int, api_key: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._used_at = 0.0
        self._headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        if time.monotonic() > self._used_at + self.KEPT_OPEN_SECONDS:
            self._connection.close()  # and opened anew with the request
        self._used_at = time.monotonic()
        headers = {**self._headers, "Idempotency-Key": str(uuid4())}
        self._connection.request(method, path, json.dumps(body).encode() if body else b"", headers)
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read() or b"{}")

    def start_cycle(self, society: Society, **more: Any) -> dict[str, Any]:
        wanted = {"tierId": str(society.tier_id), "deceasedMemberId": str(society.dead), **more}
        status, cycle = self.call("POST", CYCLES, wanted)
        if status not in (201, 202):
            raise RuntimeError(f"{status}: {cycle}")
        return cycle


async def until_active(owner: asyncpg.Connection, cycle_id: str, poll_seconds: float) -> float:
    """When the row in PostgreSQL said `Active`, by our clock: asked again every `poll_seconds`."""
    asked = await owner.prepare("SELECT cycle_status FROM contribution_cycles WHERE cycle_id = $1")
    while (status := await asked.fetchval(UUID(cycle_id))) != "Active":
        if status != "Initializing":
            raise RuntimeError(f"the cycle is {status}")
        await asyncio.sleep(poll_seconds)
    return time.perf_counter()
