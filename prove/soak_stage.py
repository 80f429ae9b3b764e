"""What the soak breaks: servers of its own, real API and worker processes, and wires between them that can be cut."""

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import asyncpg

from cli.children import Child
from core.settings import Settings
from db.embedded import EmbeddedPostgres, EmbeddedValkey, free_port
from db.migrate import migrate
from prove.reconnecting import AWAY, Reconnecting

ROOT = Path(__file__).parents[1]
APIS = WORKERS = 2
GRACE_SECONDS = 20.0
RECOVERY_SECONDS = 60.0
POSTGRES_SOCKET = ".s.PGSQL.5432"
SMALL_STEPS = {
    "GUTHI_BATCH_ROWS": "100",
    "GUTHI_SHARD_ROWS": "400",
    "GUTHI_LEASE_SECONDS": "1",
    "GUTHI_SLICE_SECONDS": "2",
    "GUTHI_SWEEP_SECONDS": "1",
    "GUTHI_BACKOFF_SECONDS": "0.5",
    "GUTHI_LOG_FORMAT": "json",
}
"""Many batches, several shards, quick recovery: so that every fault hits something that is going on."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Wire:
    """Everything that is said between our processes and one server passes here."""

    def __init__(self, connect: Callable[[], Awaitable[Streams]]) -> None:
        self._connect = connect
        self._open: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self.is_cut = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """For `asyncio.start_server` and its like: forwards until either side ends, or the wire is cut."""
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        writers = [writer]
        try:
            if not self.is_cut:
                far_reader, far_writer = await self._connect()
                writers.append(far_writer)
                await _first_of(self._pump(reader, far_writer), self._pump(far_reader, writer))
        except (OSError, asyncio.CancelledError):
            pass  # what a cut is
        finally:
            self._open.discard(task)
            for end in writers:
                end.transport.abort()

    def cut(self) -> None:
        """Every connection is gone, in the middle of whatever it says; new ones are, too, until `mend`."""
        self.is_cut = True
        for task in self._open:
            task.cancel()

    def stall(self) -> None:
        """Nothing gets through, and nobody is told."""
        self._flows.clear()

    def mend(self) -> None:
        self.is_cut = False
        self._flows.set()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while said := await reader.read(65_536):
            await self._flows.wait()
            writer.write(said)
            await writer.drain()


class Stage:
    """`async with Stage.open() as stage`: all of it runs, and is gone at the end, whatever happened."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.postgres = EmbeddedPostgres(directory / "p")
        self.valkey = EmbeddedValkey(directory / "v")
        self.to_postgres = Wire(lambda: asyncio.open_unix_connection(str(self._postgres_socket)))
        self.to_redis = Wire(lambda: asyncio.open_connection("127.0.0.1", self.valkey.port))
        self.apis: list[Child] = []
        self.workers: list[Child] = []
        self.urls: list[str] = []
        self.restarts = 0
        self.keep = False
        """Leave the directory where it is, for somebody to look into."""
        self._owners: list[Reconnecting] = []

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls) -> AsyncIterator["Stage"]:
        stage = cls(Path(tempfile.mkdtemp(prefix="gs", dir="/tmp")))  # short: sockets lie in it
        try:
            async with contextlib.AsyncExitStack() as stack:
                await stage._start(stack)
                yield stage
        finally:
            await asyncio.to_thread(stage.valkey.stop)
            await asyncio.to_thread(stage.postgres.stop, mode="immediate")
            if not stage.keep:
                shutil.rmtree(stage.directory)

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        await asyncio.to_thread(self.postgres.start)
        await asyncio.to_thread(self.valkey.start)
        await asyncio.to_thread(migrate, self.postgres.admin_url)
        self._postgres_socket = Path(self.postgres.app_url.partition("host=")[2].replace("%2F", "/")) / POSTGRES_SOCKET
        near = self.directory / "w"
        near.mkdir()
        redis_port = free_port()
        wires = (
            await asyncio.start_unix_server(self.to_postgres.serve, str(near / POSTGRES_SOCKET)),
            await asyncio.start_server(self.to_redis.serve, "127.0.0.1", redis_port),
        )
        stack.callback(self.to_postgres.cut)
        stack.callback(self.to_redis.cut)
        for wire in wires:
            stack.callback(wire.close)
        self.settings = Settings(
            _env_file=None,
            database_url=f"postgresql://guthi_app@/guthi?host={near}",
            admin_database_url=self.postgres.admin_url,
            redis_url=f"redis://127.0.0.1:{redis_port}/0",
        )
        stack.push_async_callback(self._close_owners)
        for n in range(WORKERS):
            self.workers.append(self._child(f"worker-{n}", "worker"))
        for n in range(APIS):
            port = free_port()
            self.urls.append(f"http://127.0.0.1:{port}")
            self.apis.append(self._child(f"api-{n}", "api", "--port", str(port)))
        stack.push_async_callback(self._stop_children)
        for child in self.children:
            await child.start()

    @property
    def children(self) -> list[Child]:
        return [*self.apis, *self.workers]

    def owner(self) -> Reconnecting:
        """A connection past the wires that sees every tenant; each task needs one of its own."""
        self._owners.append(Reconnecting(self.postgres.admin_url))
        return self._owners[-1]

    def logs(self) -> dict[str, str]:
        """What every process has said, all of its lives together."""
        return {log.name: log.read_text(errors="replace") for log in self.directory.glob("*.log")}

    async def superuser(self, statement: str) -> asyncpg.Record:
        """The first row that a statement of the superuser's gives. Waits while PostgreSQL recovers."""
        async with asyncio.timeout(RECOVERY_SECONDS):
            while True:
                with contextlib.suppress(*AWAY):
                    connection = await asyncpg.connect(self.postgres.superuser_url)
                    break
                await asyncio.sleep(0.1)
        try:
            row = await connection.fetchrow(statement)
            assert row is not None
            return row
        finally:
            await connection.close()

    def _child(self, name: str, *command: str) -> Child:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("GUTHI_")} | {
            "GUTHI_DATABASE_URL": self.settings.database_url,
            "GUTHI_REDIS_URL": self.settings.redis_url,
            "PYTHONPATH": str(ROOT),
            **SMALL_STEPS,
        }
        arguments = [sys.executable, "-P", "-m", "cli.main", *command]
        return Child(name, arguments, lambda: environment, self.directory / f"{name}.log", self._changed)

    def _changed(self, _: str) -> None:
        self.restarts += 1

    async def _close_owners(self) -> None:
        for owner in self._owners:
            await owner.close()

    async def _stop_children(self) -> None:
        hurry = asyncio.Event()
        ending = [child.stop(GRACE_SECONDS, hurry) for child in self.children]
        for error in await asyncio.gather(*ending, return_exceptions=True):
            if error is not None:
                raise error


async def _first_of(*flows: Awaitable[None]) -> None:
    tasks = [asyncio.ensure_future(flow) for flow in flows]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
