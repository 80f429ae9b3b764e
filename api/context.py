"""What every endpoint is given: the engine, and who is calling."""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from core.errors import UnauthorizedError
from domain.api_keys import Caller, authenticate
from jobs.engine.engine import Engine

_bearer = HTTPBearer(auto_error=False, description="guthi_<keyid>_<secret>")


def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


CurrentEngine = Annotated[Engine, Depends(_engine)]


async def _caller(
    engine: CurrentEngine, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Caller:
    if credentials is None:
        raise UnauthorizedError("send a key as 'Authorization: Bearer guthi_<keyid>_<secret>'")
    return await authenticate(engine.database, credentials.credentials)


async def _writer(caller: Annotated[Caller, Depends(_caller)]) -> Caller:
    caller.must_write()
    return caller


Reader = Annotated[Caller, Depends(_caller)]
"""Any live key."""
Writer = Annotated[Caller, Depends(_writer)]
"""A key whose role may change things."""
