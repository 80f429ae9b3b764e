"""The API as the pages use it: its own routes, called inside of this process as the session's user."""

from typing import Any
from urllib.parse import quote

import httpx
from starlette.requests import Request
from starlette.types import Receive, Scope, Send
from structlog.contextvars import get_contextvars

from api.sessions import WITHIN, Session


class ApiProblem(Exception):  # noqa: N818 (it is the API's answer, and no error of ours)
    """The API refused: `problem` is what it answered with, to be shown as a page."""

    def __init__(self, status: int, problem: dict[str, Any], headers: httpx.Headers) -> None:
        super().__init__(f"{status} {problem.get('code')}")
        self.status, self.problem, self.headers = status, problem, headers

    @property
    def code(self) -> str:
        return str(self.problem.get("code"))


class PageApi:
    """Everything that a page shows or does goes through here, with the rights of who is signed in and no others."""

    def __init__(self, request: Request, session: Session | None) -> None:
        async def within(scope: Scope, receive: Receive, send: Send) -> None:
            await request.app({**scope, WITHIN: session}, receive, send)

        client = request.client
        transport = httpx.ASGITransport(
            within, raise_app_exceptions=False, client=(client.host, client.port) if client else ("", 0)
        )
        headers = {"X-Request-Id": get_contextvars().get("request_id", "")}  # one request, whoever asks in between
        self._client = httpx.AsyncClient(transport=transport, base_url="http://pages", headers=headers)

    async def get(self, path: str, *ids: str, **query: object) -> Any:
        """What is None is not asked for. Raises `ApiProblem`."""
        wanted = {name: str(value) for name, value in query.items() if value not in (None, "")}
        return await self._call("GET", _filled(path, ids), params=wanted)

    async def post(self, path: str, *ids: str, body: Any = None, idempotency_key: str | None = None) -> Any:
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return await self._call("POST", _filled(path, ids), json=body, headers=headers)

    async def patch(self, path: str, *ids: str, body: Any) -> Any:
        return await self._call("PATCH", _filled(path, ids), json=body)

    async def delete(self, path: str, *ids: str) -> None:
        await self._call("DELETE", _filled(path, ids))

    async def _call(self, method: str, path: str, **what: Any) -> Any:
        answer = await self._client.request(method, path, **what)
        if answer.is_success:
            return answer.json() if answer.content else None
        raise ApiProblem(answer.status_code, answer.json(), answer.headers)


def _filled(path: str, ids: tuple[str, ...]) -> str:
    """What came with a request is one part of the path and no more, whatever is in it."""
    return path.format(*(quote(part, safe="") for part in ids))
