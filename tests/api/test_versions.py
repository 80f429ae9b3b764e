"""Optimistic locking: two people change one thing, one is told so, and nothing is lost."""

import asyncio
from typing import Any

import asyncpg
import httpx
import pytest

from api.app import create_app
from core.settings import Settings
from tests.api.conftest import client_of
from tests.api.expect import refused, unchanged
from tests.support import Society

PAIRS = 50
THINGS = ["/api/tiers", "/api/agents", "/api/members", "/api/users"]


async def one_of(client: httpx.AsyncClient, things: str) -> tuple[str, dict[str, Any]]:
    item = (await client.get(f"{things}?limit=1")).json()["items"][0]
    where = f"{things}/{item[things.removeprefix('/api/')[:-1] + 'Id']}"
    return where, item


def name_of(things: str) -> str:
    return "fullName" if things == "/api/members" else "name"


@pytest.mark.parametrize("things", THINGS)
async def test_a_version_is_named_in_the_body_or_by_the_etag(
    client: httpx.AsyncClient, owner: asyncpg.Connection, things: str
) -> None:
    where, item = await one_of(client, things)
    name = name_of(things)
    shown = await client.get(where)
    assert (shown.json(), shown.headers["etag"]) == (item, '"v1"')
    answer = await client.patch(where, json={name: "Second"}, headers={"If-Match": '"v1"'})
    assert (answer.status_code, answer.headers["etag"]) == (200, '"v2"')
    answer = await client.patch(where, json={name: "Third", "version": 2})
    assert {name: "Third", "version": 3}.items() <= answer.json().items()
    answer = await client.patch(where, json={name: "Fourth", "version": 3}, headers={"If-Match": '"v3"'})
    assert answer.headers["etag"] == '"v4"' == (await client.get(where)).headers["etag"]
    async with unchanged(owner):
        for body in ({name: "Lost"}, {}):
            refused(await client.patch(where, json=body), 428, "VERSION_MISSING")
        stale = [
            await client.patch(where, json={name: "Lost", "version": 3}),
            await client.patch(where, json={name: "Lost", "version": 5}),
            await client.patch(where, json={name: "Lost"}, headers={"If-Match": '"v3"'}),
        ]
        for answer in stale:
            assert refused(answer, 409, "CONCURRENT_MODIFICATION")["context"]["version"] == 4
        both = await client.patch(where, json={name: "Lost", "version": 4}, headers={"If-Match": '"v3"'})
        refused(both, 409, "CONCURRENT_MODIFICATION")
        for etag in ("*", "v4", '"4"', 'W/"v4"', '"v0"', '"v4", "v5"', '"v' + "9" * 30 + '"', "x"):
            answer = await client.patch(where, json={name: "Lost"}, headers={"If-Match": etag})
            refused(answer, 422, "INVALID_INPUT")
        refused(await client.patch(where, json={"version": 4}), 422, "INVALID_INPUT")


@pytest.mark.parametrize("things", THINGS)
async def test_fifty_pairs_at_once_lose_nothing(client: httpx.AsyncClient, things: str) -> None:
    where, _ = await one_of(client, things)
    name = name_of(things)
    for version in range(1, PAIRS + 1):
        texts = [f"{who} {version}" for who in ("Sita", "Hari")]
        answers = await asyncio.gather(*(client.patch(where, json={name: text, "version": version}) for text in texts))
        assert sorted(answer.status_code for answer in answers) == [200, 409]
        for text, answer in zip(texts, answers, strict=True):
            if answer.status_code == 200:
                assert (await client.get(where)).json()[name] == text
            else:
                assert refused(answer, 409, "CONCURRENT_MODIFICATION")["context"]["version"] == version + 1


async def test_fifty_pairs_on_fifty_things_at_once(settings: Settings, society: Society) -> None:
    patient = settings.model_copy(update={"database_pool_wait_seconds": 60.0})  # a hundred at once, ten connections
    app = create_app(patient)
    async with app.router.lifespan_context(app), client_of(app, society.api_key) as client:
        await _fifty_pairs(client)


async def _fifty_pairs(client: httpx.AsyncClient) -> None:
    made = [(await client.post("/api/agents", json={"code": f"P{n}", "name": "x"})).json() for n in range(PAIRS)]

    async def pair(agent: dict[str, Any]) -> None:
        where = f"/api/agents/{agent['agentId']}"
        names, emails = {"name": "Sita", "version": 1}, {"email": "hari@x.np", "version": 1}
        answers = await asyncio.gather(client.patch(where, json=names), client.patch(where, json=emails))
        assert sorted(answer.status_code for answer in answers) == [200, 409]
        # Who was refused reads again and asks again: then both changes stand.
        lost = names if answers[0].status_code == 409 else emails
        assert (await client.patch(where, json={**lost, "version": 2})).status_code == 200
        now = (await client.get(where)).json()
        assert (now["name"], now["email"], now["version"]) == ("Sita", "hari@x.np", 3)

    await asyncio.gather(*map(pair, made))


async def test_only_what_is_named_changes(client: httpx.AsyncClient) -> None:
    agent = (await client.post("/api/agents", json={"code": "E", "name": "E", "email": "e@x.np"})).json()
    where = f"/api/agents/{agent['agentId']}"
    assert (await client.patch(where, json={"name": "F", "version": 1})).json()["email"] == "e@x.np"
    assert (await client.patch(where, json={"email": None, "version": 2})).json()["email"] is None
    tiers, tier = await one_of(client, "/api/tiers")
    changed = (await client.patch(tiers, json={"benefitAmount": "7", "version": 1})).json()
    assert changed == {**tier, "benefitAmount": "7.00", "version": 2}
