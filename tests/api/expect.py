"""What tests of the API ask of its answers and of what a request left behind."""

import asyncio
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


async def opened(client: httpx.AsyncClient, path: str) -> httpx.Response:
    """The answer's head, or the whole refusal; then the client leaves. httpx would wait for a stream's end."""
    app = client._transport.app  # type: ignore[attr-defined]
    request = client.build_request("GET", path)
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": path,
        "query_string": b"",
        "headers": request.headers.raw,
        "scheme": "http",
        "server": ("api", 80),
        "client": ("127.0.0.1", 1),
    }
    scope["headers"] = [(name.lower(), value) for name, value in request.headers.raw]
    left, sent = asyncio.Event(), list[Any]()

    async def receive() -> dict[str, str]:
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)
        if message["type"] == "http.response.start" and message["status"] == 200:
            left.set()

    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent)
    return httpx.Response(sent[0]["status"], headers=sent[0]["headers"], content=body)


def start_of(society: Any, **changes: Any) -> dict[str, Any]:
    """The body that starts a cycle."""
    return {"tierId": str(society.tier_id), "deceasedMemberId": str(society.dead), **changes}
