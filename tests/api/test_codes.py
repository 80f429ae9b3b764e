"""Every code of `core.errors` that the API can answer with is reached here, and no other is."""

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import httpx
import pytest
from fastapi import FastAPI

from api.app import create_app
from core.settings import Settings
from db.embedded import free_port
from docs.generate import error_codes
from tests.api.conftest import client_of
from tests.api.expect import UNKNOWN, refused, start_of
from tests.support import Society

CYCLES = "/api/contribution-cycles"
AGENT = {"code": "AG1", "name": "x"}
Asked = Callable[["Case"], Awaitable[httpx.Response]]


class Case:
    """What a call that is refused may need."""

    def __init__(
        self,
        app: FastAPI,
        client: httpx.AsyncClient,
        owner: asyncpg.Connection,
        society: Society,
        settings: Settings,
        key_for: Callable[[str], Awaitable[str]],
    ) -> None:
        self.app, self.client, self.owner, self.society = app, client, owner, society
        self.settings, self.key_for = settings, key_for

    async def start(self, key: str, **changes: object) -> httpx.Response:
        body = start_of(self.society, **changes)
        return await self.client.post(CYCLES, json=body, headers={"Idempotency-Key": key})

    async def elsewhere(self, requests: int = 1, **changes: object) -> httpx.Response:
        """The last answer of an API with other settings."""
        app = create_app(self.settings.model_copy(update=changes))
        async with app.router.lifespan_context(app), client_of(app, self.society.api_key) as client:
            return [await client.get("/api/tiers") for _ in range(requests)][-1]


async def wrong_key(case: Case) -> httpx.Response:
    return await case.client.get("/api/tiers", headers={"Authorization": "Bearer x"})


async def expired_key(case: Case) -> httpx.Response:
    await case.owner.execute("UPDATE api_keys SET expires_at = now()")
    return await case.client.get("/api/tiers")


async def wrong_role(case: Case) -> httpx.Response:
    async with client_of(case.app, await case.key_for("viewer")) as viewer:
        return await viewer.post("/api/agents", json=AGENT)


async def inactive_user(case: Case) -> httpx.Response:
    await case.owner.execute("UPDATE users SET is_active = false")
    return await case.client.get("/api/tiers")


async def in_flight(case: Case) -> httpx.Response:
    lock = "SELECT pg_advisory_lock(hashtextextended('idempotency ' || $1::uuid || ' k', 0))"
    await case.owner.execute(lock, case.society.tenant_id)
    return await case.start("k")


async def reused(case: Case) -> httpx.Response:
    await case.start("k")
    return await case.start("k", durationDays=3)


async def no_arrow(case: Case) -> httpx.Response:
    cycle = (await case.start("k")).json()
    return await case.client.post(f"/api/jobs/{cycle['jobId']}/resume")


async def defect(case: Case) -> httpx.Response:
    await case.owner.execute("REVOKE SELECT ON tiers FROM guthi_app")
    return await case.client.get("/api/tiers")


async def running(case: Case) -> httpx.Response:
    """Of two at once one waits for the table, and the other is told so."""
    async with case.owner.transaction():
        await case.owner.execute("LOCK TABLE idempotency_keys")
        asked = {asyncio.create_task(case.client.post("/api/maintenance/purge_idempotency_keys/run")) for _ in "12"}
        refused, waiting = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.wait(waiting)
    return refused.pop().result()


def get(path: str) -> Asked:
    return lambda case: case.client.get(path)


def patch(path: str, **body: object) -> Asked:
    return lambda case: case.client.patch(path.replace("{user}", str(case.society.user_id)), json=body)


async def contribution(case: Case) -> httpx.Response:
    cycle = (await case.start("k")).json()
    return await case.client.get(f"{CYCLES}/{cycle['cycleId']}/contributions/{UNKNOWN}")


REACHED: dict[str, tuple[int, Asked]] = {
    "UNAUTHORIZED": (401, wrong_key),
    "SESSION_EXPIRED": (401, expired_key),
    "INSUFFICIENT_PERMISSIONS": (403, wrong_role),
    "USER_INACTIVE": (403, inactive_user),
    "INVALID_INPUT": (422, get("/api/tiers?limit=0")),
    "DUPLICATE_RESOURCE": (409, lambda case: case.client.post("/api/agents", json=AGENT)),
    "CONCURRENT_MODIFICATION": (409, patch("/api/users/{user}", name="x", version=7)),
    "VERSION_MISSING": (428, patch("/api/users/{user}", name="x")),
    "LAST_ADMIN": (409, patch("/api/users/{user}", role="viewer", version=1)),
    "INVALID_STATUS_TRANSITION": (409, no_arrow),
    "IDEMPOTENCY_KEY_MISSING": (400, lambda case: case.client.post(CYCLES, json=start_of(case.society))),
    "IDEMPOTENCY_KEY_REUSED": (422, reused),
    "IDEMPOTENCY_KEY_IN_FLIGHT": (409, in_flight),
    "RATE_LIMITED": (429, lambda case: case.elsewhere(2, rate_limit="1/minute")),
    "DATABASE_ERROR": (503, lambda case: case.elsewhere(database_url=f"postgresql://x@127.0.0.1:{free_port()}/x")),
    "UNKNOWN_ERROR": (500, defect),
    "PATH_NOT_FOUND": (404, get("/nothing")),
    "TIER_NOT_FOUND": (404, get(f"/api/tiers/{UNKNOWN}")),
    "AGENT_NOT_FOUND": (404, get(f"/api/agents/{UNKNOWN}")),
    "MEMBER_NOT_FOUND": (404, get(f"/api/members/{UNKNOWN}")),
    "CYCLE_NOT_FOUND": (404, get(f"{CYCLES}/{UNKNOWN}")),
    "JOB_NOT_FOUND": (404, get(f"/api/jobs/{UNKNOWN}")),
    "CONTRIBUTION_NOT_FOUND": (404, contribution),
    "USER_NOT_FOUND": (404, get(f"/api/users/{UNKNOWN}")),
    "MAINTENANCE_NOT_FOUND": (404, get("/api/maintenance/nothing/runs")),
    "MAINTENANCE_RUNNING": (409, running),
    "KEY_NOT_FOUND": (404, lambda case: case.client.delete(f"/api/keys/{UNKNOWN}")),
}


@pytest.mark.parametrize("code", REACHED)
async def test_it_is_answered(
    code: str,
    app: FastAPI,
    client: httpx.AsyncClient,
    owner: asyncpg.Connection,
    society: Society,
    settings: Settings,
    key_for: Callable[[str], Awaitable[str]],
) -> None:
    status, ask = REACHED[code]
    refused(await ask(Case(app, client, owner, society, settings, key_for)), status, code)


def test_these_are_all_codes() -> None:
    assert set(REACHED) == {code for code, _, _ in error_codes()}
