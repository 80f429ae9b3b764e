"""Fixtures: one real PostgreSQL and one real Valkey a session, a fresh database and queue a test."""

import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from uuid import uuid4

import asyncpg
import httpx
import pytest
from fastapi import FastAPI

from api.app import create_app
from core.settings import Settings
from db.database import Database
from db.embedded import free_port
from jobs.engine.bell import connect_redis
from jobs.engine.engine import Engine
from jobs.kinds import build_engine
from tests.discretion import remember_what_is_made, said_in
from tests.support import Api, Servers, Society, Worker, make_society, running_servers

remember_what_is_made()
# A shell starts what runs in its background with SIGINT ignored, and so would be everything that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """No two tests have one id: pytest-xdist, by files, would run one of them and say nothing of the others."""
    if twice := [name for name, times in Counter(item.nodeid for item in items).items() if times > 1]:
        raise pytest.UsageError(f"several tests are called {', '.join(twice)}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test fails when it, or what it called, has printed or logged a secret."""
    report = yield
    said = [each for _, text in report.sections for each in said_in(text)]
    if report.passed and said:
        report.outcome, report.longrepr = "failed", f"secrets were printed or logged: {said}"
    return report


@pytest.fixture(scope="session", autouse=True)
def discreet_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nor does a secret stand in a log file that a test has left, such as those of `guthi dev`."""
    yield
    for log in tmp_path_factory.getbasetemp().rglob("*.log"):
        assert not said_in(log.read_text(errors="replace")), f"{log} holds secrets"


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """Shared by all tests: a test that stops or freezes a server must bring its own, see `own_servers`."""
    with running_servers() as running:
        yield running


@pytest.fixture
def own_servers() -> Iterator[Servers]:
    """Servers that this test may stop, kill and start again."""
    with running_servers() as running:
        yield running


@pytest.fixture
async def settings(servers: Servers) -> AsyncIterator[Settings]:
    """A database of this test's own, copied from the migrated one, and a queue of its own."""
    name = f"t{uuid4().hex[:12]}"
    server = await asyncpg.connect(servers.postgres.superuser_url)
    await server.execute(f"CREATE DATABASE {name} TEMPLATE guthi OWNER guthi_owner")
    yield Settings(
        _env_file=None,
        database_url=servers.postgres.app_url.replace("/guthi?", f"/{name}?"),
        admin_database_url=servers.postgres.admin_url.replace("/guthi?", f"/{name}?"),
        redis_url=servers.valkey.url,
        queue_name=f"queue:{name}",
        # A hundred at once on a busy machine is slow, and not what most tests are about: those that are set their own.
        database_pool_wait_seconds=60.0,
    )
    await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await server.close()


@pytest.fixture
async def owner(settings: Settings) -> AsyncIterator[asyncpg.Connection]:
    """A connection that sees every tenant."""
    connection = await asyncpg.connect(settings.admin_database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def engine(settings: Settings) -> AsyncIterator[Engine]:
    database, redis = await Database.connect(settings), connect_redis(settings)
    engine = build_engine(settings, database, redis)
    yield engine
    await engine.progress.close()
    await redis.aclose(close_connection_pool=True)
    await database.close()


@pytest.fixture
async def society(owner: asyncpg.Connection) -> Society:
    """A tenant with tier A: 100 active members and one deceased, two agents."""
    return await make_society(owner, members=100)


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[FastAPI]:
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def client(app: FastAPI, society: Society) -> AsyncIterator[httpx.AsyncClient]:
    """Speaks to the API in this process, as the society's admin."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://api", headers={"Authorization": f"Bearer {society.api_key}"}
    ) as client:
        yield client


@pytest.fixture
def start_worker(settings: Settings) -> Iterator[Callable[..., Worker]]:
    """`start_worker(GUTHI_LEASE_SECONDS=1)`: a real worker process, killed at the end of the test if need be."""
    workers: list[Worker] = []

    def start(**environment: object) -> Worker:
        workers.append(Worker(settings, environment))
        return workers[-1]

    yield start
    for worker in workers:
        worker.kill()


@pytest.fixture
def start_api(settings: Settings) -> Iterator[Callable[..., Awaitable[Api]]]:
    """`await start_api(GUTHI_INLINE_BELOW=0)`: a real API process that is ready, on a free port or on `port`."""
    apis: list[Api] = []

    async def start(port: int | None = None, **environment: object) -> Api:
        apis.append(Api(settings, environment, port or free_port()))
        return await apis[-1].ready()

    yield start
    for api in apis:
        api.kill()
