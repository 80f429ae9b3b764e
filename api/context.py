"""What every endpoint is given: the engine, and who is calling."""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from core.errors import InvalidInputError, UnauthorizedError
from domain.api_keys import Caller, authenticate
from jobs.engine.engine import Engine

_bearer = HTTPBearer(auto_error=False, description="guthi_<keyid>_<secret>")


def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


CurrentEngine = Annotated[Engine, Depends(_engine)]


async def _caller(
    request: Request,
    engine: CurrentEngine,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Caller:
    if credentials is None:
        raise UnauthorizedError("send a key as 'Authorization: Bearer guthi_<keyid>_<secret>'")
    caller = await authenticate(engine.database, credentials.credentials)
    # Calls that take parameters refuse unknown ones by their model; those without must do so, too.
    if request.scope["query_string"] and not request.scope["route"].dependant.query_params:
        raise InvalidInputError("this call takes no query parameters: leave out the ? and what follows it")
    return caller


async def _writer(caller: Annotated[Caller, Depends(_caller)]) -> Caller:
    caller.must_write()
    return caller


Reader = Annotated[Caller, Depends(_caller)]
"""Any live key."""
Writer = Annotated[Caller, Depends(_writer)]
"""A key whose role may change things."""
