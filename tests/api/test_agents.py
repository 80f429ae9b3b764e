"""Agents: made, listed, never twice under one code."""

import asyncpg
import httpx

from tests.api.expect import refused, unchanged


async def test_a_new_agent_is_shown_and_listed(client: httpx.AsyncClient) -> None:
    answer = await client.post("/api/agents", json={"code": "AG9", "name": "Sita Rai", "email": "sita@example.org"})
    agent = answer.json()
    assert answer.status_code == 201
    assert set(agent) == {"agentId", "code", "name", "email", "version", "createdAt"}
    first = (await client.get("/api/agents?limit=2")).json()
    last = (await client.get("/api/agents", params={"limit": 2, "after": first["next"]})).json()
    assert [a["code"] for a in first["items"]] == ["AG1", "AG2"]
    assert last == {"items": [agent], "next": None}


async def test_an_agent_needs_no_email(client: httpx.AsyncClient) -> None:
    for body in ({"code": "X1", "name": "X"}, {"code": "X2", "name": "X", "email": None}):
        assert (await client.post("/api/agents", json=body)).json()["email"] is None


async def test_a_code_is_taken_once(client: httpx.AsyncClient, owner: asyncpg.Connection) -> None:
    async with unchanged(owner):
        problem = refused(
            await client.post("/api/agents", json={"code": "AG1", "name": "X"}), 409, "DUPLICATE_RESOURCE"
        )
    assert problem["context"] == {"field": "code"}
