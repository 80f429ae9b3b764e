"""What `guthi dev` does between its start and a signal."""

import asyncio
import contextlib
import errno
import os
import signal
import socket
import sys
import threading
import time
from functools import partial
from pathlib import Path

import asyncpg
import httpx

from cli import sample
from cli.children import Child
from cli.client import ApiClient, ApiError
from cli.dev_record import DevError, DevRecord, Pids, session_secret, stop_leftovers
from db.embedded import EmbeddedPostgres, EmbeddedValkey
from db.migrate import migrate
from domain.tenants import create_tenant

# The API and the workers get this long for what they have in hand, before they are killed: more than stop_seconds.
GRACE_SECONDS = 16.0
READY_SECONDS = 60.0
WATCH_SECONDS = 1.0


class Supervisor:
    """Starts everything in order, keeps the API and the workers running, stops everything in reverse.

    PostgreSQL and Valkey are not started again when they go: that is said, and the rest carries on without
    them, as it is built to. A second signal while stopping kills at once what was asked before.
    """

    def __init__(self, directory: Path, port: int, workers: int, empty: bool) -> None:
        self.directory, self.port, self.empty = directory, port, empty
        self.record = DevRecord.load(directory)
        self.postgres = EmbeddedPostgres(directory / "postgres")
        self.valkey = EmbeddedValkey(directory / "valkey")
        self.workers = [self._child(f"worker-{n}", "worker") for n in range(1, workers + 1)]
        self.api = self._child("api", "api", "--port", str(port))
        self.stop_asked, self.hurry = asyncio.Event(), asyncio.Event()
        self.sample_stopped = threading.Event()

    async def run(self) -> None:
        """Returns after a signal, or raises what went wrong; everything is stopped either way."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal)
        try:
            steps = (self._clear, self._start_servers, self._start_children, self._until_ready, self._check_key)
            for step in steps:
                if not self.stop_asked.is_set():
                    await step()
            if not self.stop_asked.is_set():
                print(f"ready {self.record.api_url}", flush=True)
                await self._supervise()
        finally:
            await self._stop()

    async def _clear(self) -> None:
        for pid in await asyncio.to_thread(stop_leftovers, self.record, self.valkey.data_dir):
            self._say(f"stopped process {pid}, left behind by an earlier run")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", self.port))
            except OSError as error:
                reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
                raise DevError(f"port {self.port} {reason}: choose another one with --port") from None

    async def _start_servers(self) -> None:
        await asyncio.to_thread(self.postgres.start)
        await asyncio.to_thread(self.valkey.start)
        self.record.api_url = f"http://127.0.0.1:{self.port}"
        self.record.database_url = self.postgres.app_url
        self.record.admin_database_url = self.postgres.admin_url
        self.record.redis_url = self.valkey.url
        await asyncio.to_thread(migrate, self.postgres.admin_url)
        if not self.record.api_key:
            await self._make_tenant()

    async def _start_children(self) -> None:
        # The API comes last: whoever gets an answer from it finds the record complete.
        for child in (*self.workers, self.api):
            await child.start()
        self._save()

    async def _until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        async with httpx.AsyncClient(base_url=self.record.api_url) as client:
            while not self.stop_asked.is_set():
                if self.api.pid is None or time.monotonic() > deadline:
                    raise DevError(f"the API did not start: see {self.directory / 'logs' / 'api.log'}")
                with contextlib.suppress(httpx.TransportError):
                    if (await client.get("/readyz")).is_success:
                        break
                await asyncio.sleep(0.05)

    async def _check_key(self) -> None:
        """The key of an earlier run may open nothing any more, as after somebody emptied the database."""
        try:
            with ApiClient(self.record.api_url, self.record.api_key) as client:
                await asyncio.to_thread(client.get, "/api/tiers", limit=1)
        except ApiError as error:
            if error.status not in (401, 403):
                raise
            self._say("the key in dev.json opens nothing any more: making a new society")
            await self._make_tenant()
            self._save()

    async def _make_tenant(self) -> None:
        connection = await asyncpg.connect(self.postgres.admin_url)
        try:
            tenant = await create_tenant(connection, "Namuna Guthi", "UML")
        finally:
            await connection.close()
        self.record.tenant_id, self.record.api_key = str(tenant.tenant_id), tenant.api_key

    async def _supervise(self) -> None:
        """Until a signal. An error in any of the loops ends it too, and is raised."""
        watching = asyncio.create_task(self._watch_servers())
        pending = {watching, asyncio.create_task(self._until_stop_asked())}
        pending |= {child.task for child in (*self.workers, self.api) if child.task is not None}
        if not self.empty:
            pending.add(asyncio.create_task(asyncio.to_thread(self._make_sample)))
        while not self.stop_asked.is_set():
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        watching.cancel()

    async def _until_stop_asked(self) -> None:
        await self.stop_asked.wait()

    async def _watch_servers(self) -> None:
        before = (self.record.pids.postgres, self.record.pids.valkey)  # one may have gone since they were written
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            now = (self.postgres.pid, self.valkey.pid)
            for name, old, new in zip(("PostgreSQL", "Valkey"), before, now, strict=True):
                if old != new:
                    self._changed(f"{name} runs again (pid {new})" if new else f"{name} (pid {old}) is gone")
            before = now

    def _make_sample(self) -> None:
        with ApiClient(self.record.api_url, self.record.api_key) as client:
            try:
                sample.make(client, self.sample_stopped)
                sample.print_next_steps(self.record.api_url, self.record.api_key, self.directory)
            except (ApiError, sample.SampleError, httpx.TransportError) as error:
                # The system itself is up, and worth a look: it stays.
                if not self.sample_stopped.is_set():
                    self._say(f"the sample data could not be made: {error}")

    async def _stop(self) -> None:
        self.sample_stopped.set()
        with contextlib.ExitStack() as afterwards:
            afterwards.callback(self._save)
            afterwards.callback(self.postgres.stop)
            afterwards.callback(self.valkey.stop)
            ending = [child.stop(GRACE_SECONDS, self.hurry) for child in (self.api, *self.workers)]
            for error in await asyncio.gather(*ending, return_exceptions=True):
                if error is not None:
                    raise error

    def _child(self, name: str, *command: str) -> Child:
        log = self.directory / "logs" / f"{name}.log"
        environment = partial(self._environment, name)
        return Child(name, [sys.executable, "-P", "-m", "cli.main", *command], environment, log, self._changed)

    def _environment(self, name: str) -> dict[str, str]:
        # The owner's URL and the key are not for them; set all the same, lest `.env` bring them in.
        return {
            **os.environ,
            **self.record.variables(),
            "GUTHI_ADMIN_DATABASE_URL": "",
            "GUTHI_API_KEY": "",
            "GUTHI_WORKER_NAME": name,
            "GUTHI_SESSION_SECRET": session_secret(self.directory),
        }

    def _changed(self, what: str) -> None:
        self._save()
        self._say(what)

    def _save(self) -> None:
        if self.record.api_key:
            workers = [child.pid for child in self.workers if child.pid is not None]
            self.record.pids = Pids(self.api.pid, workers, self.postgres.pid, self.valkey.pid)
            self.record.save(self.directory)

    def _say(self, what: str) -> None:
        print(f"guthi dev: {what}", file=sys.stderr, flush=True)

    def _on_signal(self) -> None:
        (self.hurry if self.stop_asked.is_set() else self.stop_asked).set()
