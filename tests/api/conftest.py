"""What the tests of the API share: a second tenant, users of other roles, and a server that streams."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import uuid4

import asyncpg
import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from domain.api_keys import new_api_key
from tests.support import Society, make_society

Start = Callable[..., Awaitable[httpx.Response]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """schemathesis gives the tests of one function all the same id, and pytest-xdist by files runs one of each id."""
    for item in items:
        if label := getattr(item, "operation_label", None):
            item._id = item.id.with_params(label)


def client_of(app: FastAPI, api_key: str) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://api", headers={"Authorization": f"Bearer {api_key}"})


@pytest.fixture
async def other(owner: asyncpg.Connection) -> Society:
    """Another tenant."""
    return await make_society(owner, members=3, prefix="OTH")


@pytest.fixture
async def stranger(app: FastAPI, other: Society) -> AsyncIterator[httpx.AsyncClient]:
    """The other tenant's admin."""
    async with client_of(app, other.api_key) as client:
        yield client


@pytest.fixture
def key_for(owner: asyncpg.Connection, society: Society) -> Callable[[str], Awaitable[str]]:
    """`await key_for("viewer")`: the key of a new user with that role."""

    async def make(role: str) -> str:
        user_id = await owner.fetchval(
            "INSERT INTO users (tenant_id, email, name, role) VALUES ($1, $2, 'x', $2) RETURNING user_id",
            society.tenant_id,
            role,
        )
        return (await new_api_key(owner, society.tenant_id, user_id)).api_key

    return make


@pytest.fixture
def start(client: httpx.AsyncClient, society: Society) -> Start:
    """`await start(strategy="queued")`: POST a cycle under a new key."""

    async def post(**changes: object) -> httpx.Response:
        body = {"tierId": str(society.tier_id), "deceasedMemberId": str(society.dead), **changes}
        return await client.post("/api/contribution-cycles", json=body, headers={"Idempotency-Key": str(uuid4())})

    return post


@pytest.fixture
async def server_url(app: FastAPI) -> AsyncIterator[str]:
    async with served(app) as url:
        yield url


@contextlib.asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[str]:
    """The same app behind a real server of this loop: httpx's own transport does not stream."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_config=None))
    with contextlib.ExitStack() as stack:
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        stack.callback(setattr, server, "force_exit", True)
        yield f"http://127.0.0.1:{port}"
        server.should_exit = True
    await serving
