"""Bodies have a size limit, whether they say their length or not."""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import problem_response
from core.errors import BodyTooLargeError
from core.settings import Settings

BODILESS = {"GET", "HEAD"}  # no call of theirs reads a body
IMPORT_PATH = "/api/members/import"


class BodyLimit:
    """Plain ASGI: 413 before anything is read where the length is told, else as soon as too much has come."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in BODILESS:
            await self._app(scope, receive, send)
            return
        most = self._settings.max_import_bytes if scope["path"] == IMPORT_PATH else self._settings.max_body_bytes
        too_large = f"the body is larger than {most} bytes: send less at once"
        told = dict(scope["headers"]).get(b"content-length", b"")
        if told.isdigit() and int(told) > most:
            await problem_response(413, BodyTooLargeError.code, too_large)(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                raise HTTPException(413, too_large)
            return message

        await self._app(scope, counted, send)
