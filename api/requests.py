"""Every request has an id: the client's own, or a new one. Answer, logs and audit log carry it."""

import re
from ipaddress import ip_address
from random import getrandbits

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, reset_contextvars

from api.limits import BODILESS
from db.database import Actor, acting_as

HEADER = b"x-request-id"
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

        async def with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (HEADER, request_id)]
            await send(message)

        told = request_id.decode()
        bound = bind_contextvars(request_id=told)
        try:
            if scope["method"] in BODILESS:  # it changes nothing, so nobody acts
                await self._app(scope, receive, with_id)
            else:
                with acting_as(Actor(request_id=told, address=_address(scope))):
                    await self._app(scope, receive, with_id)
        finally:
            reset_contextvars(**bound)


def _request_id(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == HEADER:
            return value if _FORM.fullmatch(value) else _new_id()
    return _new_id()


def _new_id() -> bytes:
    return b"%032x" % getrandbits(128)  # unlike, not secret


def _address(scope: Scope) -> str | None:
    """A proxy's header may have put anything there."""
    try:
        return str(ip_address((scope.get("client") or ("",))[0]))
    except ValueError:
        return None
