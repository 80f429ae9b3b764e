"""The API client of the commands: problems become one error with the API's own words."""

import httpx
import pytest

from cli.client import ApiClient, ApiError


def client(answer: httpx.Response, seen: list[httpx.Request]) -> ApiClient:
    def respond(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return answer

    api = ApiClient("http://api.test", "guthi_id_secret")
    api.http = httpx.Client(
        transport=httpx.MockTransport(respond), base_url="http://api.test", headers=api.http.headers
    )
    return api


def test_a_problem_is_told_with_its_code() -> None:
    problem = {"detail": "a code is taken", "code": "DUPLICATE_RESOURCE", "context": {"field": "code"}}
    with client(httpx.Response(409, json=problem), []) as api, pytest.raises(ApiError, match="a code is taken") as told:
        api.post("/api/tiers", {"code": "A"})
    assert (told.value.status, told.value.code, told.value.context) == (409, "DUPLICATE_RESOURCE", {"field": "code"})


def test_an_error_of_something_in_between_is_told_too() -> None:
    with client(httpx.Response(502, text="<html>"), []) as api, pytest.raises(ApiError, match="Bad Gateway"):
        api.get("/api/tiers")


def test_what_is_not_asked_for_is_not_sent() -> None:
    seen: list[httpx.Request] = []
    with client(httpx.Response(200, json={"items": []}), seen) as api:
        api.get("/api/members", status="Active", tier=None)
        api.post("/api/x", idempotency_key="once")
    assert str(seen[0].url) == "http://api.test/api/members?status=Active"
    assert seen[0].headers["Authorization"] == "Bearer guthi_id_secret"
    assert seen[1].headers["Idempotency-Key"] == "once"
