"""What tests of the API ask of its answers and of what a request left behind."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx

UNKNOWN = "01900000-0000-7000-8000-000000000000"
"""The id of nothing."""


def refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The answer is the problem of this status and code, whole, with a sentence for people."""
    assert (response.status_code, response.json().get("code")) == (status, code), response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert set(problem) == {"type", "title", "status", "detail", "code", "context"}
    assert problem["type"] == "urn:guthi:error:" + code.lower().replace("_", "-")
    assert problem["title"] and problem["status"] == status and isinstance(problem["context"], dict)
    assert len(problem["detail"]) > 10
    return problem


@contextlib.asynccontextmanager
async def unchanged(owner: asyncpg.Connection) -> AsyncIterator[None]:
    """Every row of every table is the same before and after."""
    before = await fingerprint(owner)
    yield
    assert await fingerprint(owner) == before


async def fingerprint(owner: asyncpg.Connection) -> dict[str, tuple[int, int]]:
    tables = await owner.fetch(
        "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition"
        " AND relnamespace = 'public'::regnamespace ORDER BY 1"
    )
    statement = " UNION ALL ".join(
        f"SELECT '{t[0]}', count(*), coalesce(sum(hashtextextended(r::text, 0)::numeric), 0) FROM {t[0]} AS r"
        for t in tables
    )
    return {name: (rows, content) for name, rows, content in await owner.fetch(statement)}


def start_of(society: Any, **changes: Any) -> dict[str, Any]:
    """The body that starts a cycle."""
    return {"tierId": str(society.tier_id), "deceasedMemberId": str(society.dead), **changes}
