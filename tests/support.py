"""What tests share: societies made fast, worker processes, waiting for a fact instead of for time."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx

from core.settings import Settings
from db.embedded import EmbeddedPostgres, EmbeddedValkey
from db.migrate import migrate
from domain.tenants import create_tenant
from jobs.invariants import broken_invariants
from tests.discretion import remember, said_in

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Servers:
    postgres: EmbeddedPostgres
    valkey: EmbeddedValkey


@contextlib.contextmanager
def running_servers() -> Iterator[Servers]:
    """A migrated PostgreSQL and a Valkey of one's own, gone with all they hold at the end."""
    directory = Path(tempfile.mkdtemp(prefix="gt", dir="/tmp"))
    servers = Servers(EmbeddedPostgres(directory / "p"), EmbeddedValkey(directory / "v"))
    try:
        servers.postgres.start()
        servers.valkey.start()
        migrate(servers.postgres.admin_url)
        yield servers
    finally:
        servers.valkey.stop()
        servers.postgres.stop(mode="immediate")
        shutil.rmtree(directory)


def clean_environment() -> dict[str, str]:
    """What a command is given at a desk: no settings, and the size of its own terminal instead of the test runner's."""
    told = {"COLUMNS", "LINES"}
    return {name: value for name, value in os.environ.items() if name not in told and not name.startswith("GUTHI_")}


@dataclass(frozen=True)
class Society:
    """`dead` is a deceased member of the tier; `members` are active ones and owe."""

    tenant_id: UUID
    api_key: str
    user_id: UUID
    tier_id: UUID
    dead: UUID
    members: int


async def make_society(
    owner: asyncpg.Connection, members: int, *, prefix: str = "UML", agents: int = 2, events: bool = True
) -> Society:
    """Straight into the tables, as an import of a million members would take its time; whole or not at all.

    `events=False` leaves out the events of members, tiers and agents, which `doctor` would miss: for measurements.
    """
    async with owner.transaction():
        tenant = await create_tenant(owner, f"Society of {members}", prefix)
        tenant_id = tenant.tenant_id
        tier_id = await owner.fetchval(
            "INSERT INTO tiers (tenant_id, code, name, contribution_amount, benefit_amount)"
            " VALUES ($1, 'A', 'Tier A', 100, 500000) RETURNING tier_id",
            tenant_id,
        )
        await owner.execute(
            "INSERT INTO agents (tenant_id, code, name)"
            " SELECT $1, 'AG' || i, 'Agent ' || i FROM generate_series(1, $2) AS i",
            tenant_id,
            agents,
        )
        await owner.execute(
            """
            INSERT INTO members (tenant_id, member_number, full_name, gender, status, tier_id, agent_id, joined_on)
            SELECT $1, 'OLD-' || i, 'Member ' || i, 'F', CASE i WHEN 0 THEN 'Deceased' ELSE 'Active' END, $2,
                   a.agent_id, '2020-01-01'
            FROM generate_series(0, $3) AS i
            LEFT JOIN (
                SELECT agent_id, row_number() OVER (ORDER BY agent_id) - 1 AS n FROM agents WHERE tenant_id = $1
            ) AS a ON a.n = i % $4
            """,
            tenant_id,
            tier_id,
            members,
            max(agents, 1),
        )
        await owner.execute(
            "INSERT INTO tier_memberships (tenant_id, tier_id, member_id, valid_from)"
            " SELECT tenant_id, tier_id, member_id, clock_timestamp() FROM members"
            " WHERE tenant_id = $1 AND status = 'Active'",
            tenant_id,
        )
        if events:
            await owner.execute("SELECT adopt_rows()")
    await owner.execute("ANALYZE members, tier_memberships, events")
    dead = await owner.fetchval("SELECT member_id FROM members WHERE tenant_id = $1 AND status = 'Deceased'", tenant_id)
    user_id = await owner.fetchval("SELECT user_id FROM users WHERE tenant_id = $1", tenant_id)
    return Society(tenant_id, tenant.api_key, user_id, tier_id, dead, members)


@contextlib.asynccontextmanager
async def unguarded(owner: asyncpg.Connection, *tables: str) -> AsyncIterator[None]:
    """The owner may put rows into any state meanwhile: the triggers that hold them to their maps are off."""
    for table in tables:
        await owner.execute(f"ALTER TABLE {table} DISABLE TRIGGER check_transition")
    yield
    for table in tables:
        await owner.execute(f"ALTER TABLE {table} ENABLE TRIGGER check_transition")


async def eventually(
    fact: Callable[[], Awaitable[Any]], wanted: Callable[[Any], bool] = bool, seconds: float = 60
) -> Any:
    """The first value of `fact` that is `wanted`; fails with the last one when there is none in time."""
    value: Any = None
    try:
        async with asyncio.timeout(seconds):
            while not wanted(value := await fact()):
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"did not come true in {seconds} s; at last it was {value!r}") from None
    return value


async def cycle_status(owner: asyncpg.Connection, cycle_id: UUID) -> str:
    status: str = await owner.fetchval("SELECT cycle_status FROM contribution_cycles WHERE cycle_id = $1", cycle_id)
    return status


async def assert_whole(owner: asyncpg.Connection, society: Society, cycle_id: UUID) -> None:
    """The cycle is `Active`, has exactly one row for every member who owes, and every invariant holds."""
    assert await cycle_status(owner, cycle_id) == "Active"
    rows = await owner.fetchrow(
        "SELECT count(*) AS rows, count(DISTINCT member_id) AS members FROM contributions WHERE cycle_id = $1", cycle_id
    )
    assert rows is not None
    assert (rows["rows"], rows["members"]) == (society.members, society.members)
    assert await broken_invariants(owner) == []


class Guthi:
    """A real `guthi` process that runs until it is stopped. Its log is in `log`."""

    def __init__(self, command: Sequence[str], settings: Settings, environment: Mapping[str, object]) -> None:
        given = {f"GUTHI_{name.upper()}": str(value) for name, value in settings.model_dump().items()}
        given |= {name: str(value) for name, value in environment.items()}
        remember(*settings.secrets)
        self.log = Path(tempfile.mkstemp(prefix=command[0], suffix=".log")[1])
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cli.main", *command],
                cwd=ROOT,
                env={**os.environ, **given},
                stdout=log,
                stderr=log,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self, seconds: float = 30) -> int:
        """Its exit code, once it has one."""
        return await asyncio.wait_for(asyncio.to_thread(self.process.wait), seconds)

    def kill(self) -> None:
        """SIGKILL, also for a frozen one; fine when it is gone already."""
        self.process.kill()
        self.process.wait()
        if self.log.exists():
            said = said_in(self.log.read_text(errors="replace"))
            self.log.unlink()
            assert not said, f"its log holds secrets: {said}"


class Worker(Guthi):
    """A real `guthi worker` process."""

    def __init__(self, settings: Settings, environment: Mapping[str, object]) -> None:
        super().__init__(["worker"], settings, environment)


class Api(Guthi):
    """A real `guthi api` process at `url`."""

    def __init__(self, settings: Settings, environment: Mapping[str, object], port: int) -> None:
        super().__init__(["api", "--port", str(port)], settings, environment)
        self.port, self.url = port, f"http://127.0.0.1:{port}"

    async def ready(self, seconds: float = 30) -> "Api":
        async with httpx.AsyncClient(base_url=self.url) as client:

            async def answers() -> bool:
                assert self.process.poll() is None, self.log.read_text()
                with contextlib.suppress(httpx.TransportError):
                    return (await client.get("/readyz")).is_success
                return False

            await eventually(answers, seconds=seconds)
        return self
