"""Tiers: made, listed, never twice under one code."""

import asyncio

import asyncpg
import httpx
import pytest

from tests.api.expect import refused, unchanged
from tests.support import Society

TIER = {"code": "B", "name": "तह ख", "contributionAmount": "0.01", "benefitAmount": "999999999999.99"}


async def test_a_new_tier_is_shown_and_listed_last(client: httpx.AsyncClient, society: Society) -> None:
    answer = await client.post("/api/tiers", json=TIER)
    tier = answer.json()
    assert answer.status_code == 201
    assert set(tier) == {"tierId", "version", "createdAt", *TIER}
    assert {name: tier[name] for name in TIER} == TIER
    listed = (await client.get("/api/tiers")).json()
    assert [t["tierId"] for t in listed["items"]] == [str(society.tier_id), tier["tierId"]]
    assert listed["items"][1] == tier
    assert listed["next"] is None


@pytest.mark.parametrize(
    ("given", "shown"), [("100", "100.00"), (100, "100.00"), (100.0, "100.00"), ("1.5", "1.50"), ("1.05", "1.05")]
)
async def test_money_is_shown_with_two_places(client: httpx.AsyncClient, given: object, shown: str) -> None:
    tier = (await client.post("/api/tiers", json={**TIER, "contributionAmount": given})).json()
    assert tier["contributionAmount"] == shown


async def test_a_code_is_taken_once(client: httpx.AsyncClient, owner: asyncpg.Connection) -> None:
    answers = await asyncio.gather(*(client.post("/api/tiers", json=TIER) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409]
    async with unchanged(owner):
        problem = refused(await client.post("/api/tiers", json=TIER), 409, "DUPLICATE_RESOURCE")
    assert problem["context"] == {"field": "code"}


async def test_tiers_are_paged(client: httpx.AsyncClient) -> None:
    made = [(await client.post("/api/tiers", json={**TIER, "code": f"T{n}"})).json()["tierId"] for n in range(4)]
    seen: list[str] = []
    after: dict[str, str] = {}
    while after is not None:
        page = (await client.get("/api/tiers", params={"limit": 2, **after})).json()
        seen += [tier["tierId"] for tier in page["items"]]
        after = page["next"] and {"after": page["next"]}
    assert seen[1:] == made
