"""What the tests of faults have: a sampler that asks for the invariants meanwhile, and servers to break."""

from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import asyncpg
import pytest

from core.settings import Settings
from jobs.engine.engine import Engine
from tests.cycles import watched
from tests.support import Servers, running_servers


@pytest.fixture
async def sampler(settings: Settings, engine: Engine) -> AsyncIterator[None]:
    """Fails the test when an invariant was broken at any instant that it looked."""
    async with watched(settings, engine.progress):
        yield


@pytest.fixture(scope="session")
def _second_servers() -> Iterator[Servers]:
    with running_servers() as running:
        yield running


@pytest.fixture
def breakable_servers(_second_servers: Servers) -> Iterator[Servers]:
    """Servers apart from everybody else's, to be stopped and killed: whole again for the next test."""
    yield _second_servers
    _second_servers.valkey.start()
    _second_servers.postgres.start()


@pytest.fixture
async def settings(servers: Servers) -> AsyncIterator[Settings]:
    """As everywhere, but the server may have died meanwhile; what is left of the database goes with the server."""
    name = f"t{uuid4().hex[:12]}"
    server = await asyncpg.connect(servers.postgres.superuser_url)
    await server.execute(f"CREATE DATABASE {name} TEMPLATE guthi OWNER guthi_owner")
    await server.close()
    yield Settings(
        _env_file=None,
        database_url=servers.postgres.app_url.replace("/guthi?", f"/{name}?"),
        admin_database_url=servers.postgres.admin_url.replace("/guthi?", f"/{name}?"),
        redis_url=servers.valkey.url,
        queue_name=f"queue:{name}",
    )
