"""The ways to make contributions that are compared: this system, plain statements, and the peers of `bench/peers`."""

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

from bench.stage import Client, Process, Stage, children_of
from tests.support import Society

HERE = Path(__file__).parent / "peers"
PEERS_PYTHON = Path(__file__).parents[1] / ".venv-bench/bin/python"
OWN_TABLES = """
CREATE TABLE IF NOT EXISTS bench_runs (
    run_id uuid PRIMARY KEY, tenant_id uuid NOT NULL, tier_id uuid NOT NULL, dead uuid NOT NULL,
    status text NOT NULL DEFAULT 'Initializing', total bigint, processed bigint NOT NULL DEFAULT 0,
    cursor uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000'
);
CREATE TABLE IF NOT EXISTS bench_usual (
    contribution_id uuid PRIMARY KEY DEFAULT uuidv7(),
    tenant_id uuid NOT NULL, cycle_id uuid NOT NULL, member_id uuid NOT NULL,
    contribution_amount numeric(14, 2) NOT NULL CHECK (contribution_amount > 0),
    contribution_status text NOT NULL DEFAULT 'Pending' CHECK (contribution_status IN ('Pending', 'Paid', 'Failed')),
    due_date date NOT NULL,
    UNIQUE (cycle_id, member_id)
);
"""


@dataclass(frozen=True)
class Run:
    """A run that was handed over: `cycle_id` in the contributions, `job_id` for this system's own."""

    cycle_id: UUID
    job_id: UUID | None = None


class Way(ABC):
    """Opened for a turn, closed after it: no way's idle workers are beside another's run."""

    name: str
    can_stop: ClassVar[bool] = False
    workers: list[Process]
    table = "contributions"

    @abstractmethod
    def open(self, stage: Stage, workers: int) -> contextlib.AbstractAsyncContextManager["Way"]:
        """With all processes of it started and idle."""

    @abstractmethod
    async def start(self, society: Society, sampled: int | None = None) -> Run:
        """Hand the run over: returns when the way has taken it, or, without a queue, at the end of it."""

    @abstractmethod
    async def is_done(self, run: Run) -> bool: ...

    @abstractmethod
    async def processed(self, run: Run) -> int:
        """What it shows of its progress."""

    async def stop(self, run: Run, society: Society) -> None:
        """Ask it to stop; returns with its answer."""
        raise NotImplementedError(f"{self.name} cannot stop a run")

    async def start_worker(self, number: int) -> None:
        """One more worker, in the place of one that died."""
        raise NotImplementedError(f"{self.name} needs no restart")

    async def rows(self, run: Run) -> int:
        query = f"SELECT count(*) FROM {self.table} WHERE cycle_id = $1"
        return int(await self.stage.owner.fetchval(query, run.cycle_id))

    async def finish(self, run: Run, poll_seconds: float) -> None:
        while not await self.is_done(run):
            await asyncio.sleep(poll_seconds)

    stage: Stage

    def memory(self) -> float:
        """Peak MiB of the processes that do the work, all of them together."""
        return sum(peak_memory(pid) for worker in self.workers for pid in (worker.pid, *children_of(worker.pid)))


class Ours(Way):
    name = "this system"
    can_stop = True

    @contextlib.asynccontextmanager
    async def open(self, stage: Stage, workers: int) -> AsyncIterator[Way]:
        self.stage = stage
        async with stage.workers(workers) as started:
            self.workers = list(started)
            yield self
            await stage.settled()  # while there are workers that can do what follows a cycle

    async def start(self, society: Society, sampled: int | None = None) -> Run:
        client = Client(self.stage.port, society.api_key)
        cycle = await asyncio.to_thread(client.start_cycle, society, strategy="queued")
        return Run(UUID(cycle["cycleId"]), UUID(cycle["jobId"]))

    async def is_done(self, run: Run) -> bool:
        query = "SELECT cycle_status FROM contribution_cycles WHERE cycle_id = $1"
        status = await self.stage.owner.fetchval(query, run.cycle_id)
        if status not in ("Initializing", "Active"):
            raise RuntimeError(f"the cycle is {status}")
        return bool(status == "Active")

    async def processed(self, run: Run) -> int:
        query = "SELECT coalesce(sum(processed), 0)::bigint FROM batch_job_shards WHERE job_id = $1"
        return int(await self.stage.owner.fetchval(query, run.job_id))

    async def stop(self, run: Run, society: Society) -> None:
        client = Client(self.stage.port, society.api_key)
        status, job = await asyncio.to_thread(client.call, "POST", f"/api/jobs/{run.job_id}/pause")
        if (status, job["state"]) != (200, "Paused"):
            raise RuntimeError(f"{status}: {job}")

    async def give_up(self, run: Run, society: Society) -> None:
        client = Client(self.stage.port, society.api_key)
        status, job = await asyncio.to_thread(client.call, "POST", f"/api/jobs/{run.job_id}/cancel")
        if status != 200:
            raise RuntimeError(f"{status}: {job}")


class Peer(Way):
    """A file of `bench/peers`, in processes of its own."""

    def __init__(
        self, name: str, *command: str, needs: str = "", has_worker: bool = True, can_stop: bool = False, **more: str
    ) -> None:
        self.name, self._command, self._needs, self._environment = name, command, needs, more
        self.has_worker = has_worker
        self.can_stop = can_stop  # type: ignore[misc]  # what a class says for itself, a peer's file says
        self.table = "bench_usual" if more.get("BENCH_WAY") == "usual" else "contributions"

    def missing(self) -> str | None:
        """Why it cannot be run here; None when it can."""
        if self._command[0].endswith(".js"):
            if shutil.which("node") is None:
                return "Node is not installed"
            return (
                None
                if (HERE / "bullmq/node_modules").exists()
                else "its packages are not installed: scripts/bench does"
            )
        if not self._needs:
            return None
        if not PEERS_PYTHON.exists():
            return "the peers' environment is not made: scripts/bench does"
        known = subprocess.run([PEERS_PYTHON, "-c", f"import {self._needs}"], capture_output=True)
        return f"{self._needs} needs Python 3.12 or newer, and none was found" if known.returncode else None

    @contextlib.asynccontextmanager
    async def open(self, stage: Stage, workers: int) -> AsyncIterator[Way]:
        self.stage = stage
        await stage.owner.execute(OWN_TABLES)
        self.workers = []
        if self._command[0].endswith(".py") and self.name not in stage.set_up:
            stage.set_up.add(self.name)
            setup = self._process("setup")
            if await asyncio.to_thread(setup.wait, 60):
                raise RuntimeError(setup.log.read_text()[-2_000:])
        client = self._process("client", stdin=subprocess.PIPE)
        try:
            for number in range(workers if self.has_worker else 0):
                await self.start_worker(number)
            await client.says("ready")
            self._client, self._answered = client, 0
            if not self.has_worker:
                self.workers = [client]
            yield self
        finally:
            for process in {client, *self.workers}:
                process.kill_group()

    async def start_worker(self, number: int) -> None:
        worker = self._process("worker", BENCH_WORKER=str(number))
        self.workers.append(worker)
        await worker.says("ready")

    async def start(self, society: Society, sampled: int | None = None) -> Run:
        run = Run(await self.stage.owner.fetchval("SELECT uuidv7()"))
        order = {"do": "start", "run_id": str(run.cycle_id), "sampled": sampled}
        order |= {name: str(getattr(society, name)) for name in ("tenant_id", "tier_id", "dead")}
        await self._tell(order)
        return run

    async def stop(self, run: Run, society: Society) -> None:
        await self._tell({"do": "stop", "run_id": str(run.cycle_id)})

    async def is_done(self, run: Run) -> bool:
        status = await self.stage.owner.fetchval("SELECT status FROM bench_runs WHERE run_id = $1", run.cycle_id)
        return bool(status == "Active")

    async def processed(self, run: Run) -> int:
        query = "SELECT coalesce(sum(processed), 0)::bigint FROM bench_runs WHERE run_id = $1"
        return int(await self.stage.owner.fetchval(query, run.cycle_id))

    async def _tell(self, order: dict[str, Any]) -> None:
        self._client.write(json.dumps(order) + "\n")
        self._answered += 1
        while self._client.log.read_text().count("done\n") < self._answered:
            if self._client.poll() is not None:
                raise RuntimeError(self._client.log.read_text()[-2_000:])
            await asyncio.sleep(0.0005)

    def _process(self, role: str, **more: Any) -> Process:
        """Not of the application's environment: the peers know neither its settings nor its roles."""
        name, stdin = self._command[0], more.pop("stdin", subprocess.DEVNULL)
        environment = {
            "BENCH_DATABASE_URL": self.stage.postgres.admin_url.replace("%2F", "/"),
            "BENCH_REDIS_URL": self.stage.valkey.url,
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONWARNINGS": "ignore",
            **self._environment,
            **more,
        }
        program = "node" if name.endswith(".js") else str(PEERS_PYTHON if self._needs else sys.executable)
        return self.stage.start_program(program, str(HERE / name), role, environment=environment, stdin=stdin)


STATEMENTS: Sequence[Peer] = (
    Peer("one INSERT … SELECT", "one_statement.py", has_worker=False, BENCH_WAY="plain"),
    Peer("the same, ON CONFLICT DO NOTHING", "one_statement.py", has_worker=False, BENCH_WAY="conflict"),
    Peer("the same, stored id, unique (cycle, member)", "one_statement.py", has_worker=False, BENCH_WAY="usual"),
    Peer("COPY from Python", "copy_rows.py", has_worker=False),
)
QUEUES: Sequence[Peer] = (
    Peer("Oban for Python, one looping job", "oban_loop.py", needs="oban", can_stop=True),
    Peer("procrastinate, one looping task", "procrastinate_loop.py", needs="procrastinate"),
    Peer("DBOS, a workflow of batches", "dbos_batches.py", needs="dbos", can_stop=True),
    Peer("Celery + SQLAlchemy", "celery_sqlalchemy.py", needs="celery"),
    Peer("arq, a job a chunk", "arq_chunks.py"),
)
BULLMQ = Peer("BullMQ + node-postgres, OFFSET", "bullmq/peer.js")


def peak_memory(pid: int) -> float:
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    return 0.0
