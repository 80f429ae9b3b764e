"""Every request has an id: the client's own, or a new one. Answer, logs and audit log carry it.

Here a request also begins and ends for the metrics and for traces, which know it by the same id.
"""

import re
from ipaddress import ip_address
from random import getrandbits
from time import perf_counter
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, reset_contextvars

from api.limits import BODILESS
from core.telemetry import lasting
from db.database import Actor, acting_as

HEADER = b"x-request-id"
TRACE_HEADER = b"traceparent"
_FORM = re.compile(rb"[A-Za-z0-9._-]{1,100}")


class RequestIds:
    """Plain ASGI, and outermost. An id that cannot stand in a log is not refused: a new one takes its place."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        told = request_id.decode()
        bound = bind_contextvars(request_id=told)
        try:
            with lasting(
                "request", method=scope["method"], path=scope["path"], request_id=told, traceparent=_traceparent(scope)
            ) as request:
                await self._answer(scope, receive, send, request_id, request)
        finally:
            reset_contextvars(**bound)

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, request_id: bytes, request: dict[str, Any]
    ) -> None:
        """Puts into `request` what is known of it only when it was answered; no status: the client went first."""
        began = perf_counter()
        request["status"] = None

        async def with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (HEADER, request_id)]
                request.update(status=message["status"], answered_seconds=perf_counter() - began)
            await send(message)

        try:
            if scope["method"] in BODILESS:  # it changes nothing, so nobody acts
                await self._app(scope, receive, with_id)
            else:
                with acting_as(Actor(request_id=request["request_id"], address=_address(scope))):
                    await self._app(scope, receive, with_id)
        finally:
            request.update(route=_route(scope), tenant_id=scope.get("tenant_id"))


def _request_id(scope: Scope) -> bytes:
    value = _header(scope, HEADER)
    return value if value is not None and _FORM.fullmatch(value) else _new_id()


def _traceparent(scope: Scope) -> str | None:
    value = _header(scope, TRACE_HEADER)
    return None if value is None else value.decode("latin-1")


def _header(scope: Scope, wanted: bytes) -> bytes | None:
    for name, value in scope["headers"]:
        if name == wanted:
            found: bytes = value
            return found
    return None


def _route(scope: Scope) -> str:
    """As it is declared: the path itself holds ids, and anything else that a client may send."""
    return getattr(scope.get("route"), "path", "none")


def _new_id() -> bytes:
    return b"%032x" % getrandbits(128)  # unlike, not secret


def _address(scope: Scope) -> str | None:
    """A proxy's header may have put anything there."""
    try:
        return str(ip_address((scope.get("client") or ("",))[0]))
    except ValueError:
        return None
