"""Errors as problems, whatever the path, the method or the Host header."""

import httpx
import pytest
from fastapi import FastAPI

from tests.api.expect import UNKNOWN, refused, start_of
from tests.support import Society


@pytest.mark.parametrize(
    "path", ["/nothing", "/api", "/api/tiers/", "/x//", "/%00", "/api/contribution-cycles/x/y/z", "/%FF"]
)
async def test_an_unknown_path_is_a_problem(client: httpx.AsyncClient, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        refused(await client.request(method, path), 404, "PATH_NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/api/tiers", "GET, POST"),
        ("DELETE", "/api/contribution-cycles", "GET, POST"),
        ("POST", f"/api/members/{UNKNOWN}", "GET, PATCH"),
        ("GET", "/api/members/import", "POST"),
        ("DELETE", "/api/members/import", "POST"),
        ("GET", f"/api/keys/{UNKNOWN}", "DELETE"),
        ("POST", f"/api/users/{UNKNOWN}", "GET, PATCH"),
        ("PATCH", "/api/members/import", "POST"),
        ("GET", f"/api/jobs/{UNKNOWN}/pause", "POST"),
        ("OPTIONS", "/livez", "GET"),
        ("BREW", "/metrics", "GET"),
    ],
)
async def test_a_method_that_is_not_there_tells_those_that_are(
    client: httpx.AsyncClient, method: str, path: str, allow: str
) -> None:
    answer = await client.request(method, path)
    refused(answer, 405, "INVALID_INPUT")
    assert answer.headers["allow"] == allow


@pytest.mark.parametrize("host", ["[", "a b", "é", "http://x/", "x:y:z", "", "[::1", "x" * 5_000])
async def test_a_made_up_host_breaks_nothing(client: httpx.AsyncClient, society: Society, host: str) -> None:
    headers = {b"Host": host.encode()}
    refused(await client.get("/nothing", headers=headers), 404, "PATH_NOT_FOUND")
    start = {**headers, b"Idempotency-Key": b"1"}
    answer = await client.post("/api/contribution-cycles", json=start_of(society), headers=start)
    assert answer.status_code == 201
    assert answer.headers["location"].startswith("/api/")


async def test_a_defect_is_a_problem_that_tells_nothing(
    client: httpx.AsyncClient, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the secret of the house")

    monkeypatch.setattr("api.tiers.sql", type("Broken", (), {"insert_tier": staticmethod(broken)}))
    body = {"code": "X", "name": "X", "contributionAmount": "1", "benefitAmount": "1"}
    answer = await client.post("/api/tiers", json=body)
    refused(answer, 500, "UNKNOWN_ERROR")
    assert "secret" not in answer.text


async def test_the_document_tells_of_problems(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    assert set(document["components"]["schemas"]["Problem"]["required"]) == {
        *("type", "title", "status", "detail", "code", "context")
    }
    assert (await client.get("/docs")).status_code == 200
