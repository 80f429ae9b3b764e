"""What every endpoint is given: the engine, and who is calling."""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from core.errors import InvalidInputError, UnauthorizedError
from domain.api_keys import Caller, authenticate
from jobs.engine.engine import Engine


async def _engine(request: Request) -> Engine:  # async, as FastAPI hops to a thread for what is not
    engine: Engine = request.app.state.engine
    return engine


CurrentEngine = Annotated[Engine, Depends(_engine)]


class _CallerFromKey(HTTPBearer):
    """Documented as a bearer scheme, gives the Caller. One dependency for all of it, as each costs time."""

    async def __call__(self, request: Request) -> Caller:  # type: ignore[override]  # FastAPI only calls it
        scheme, _, api_key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise UnauthorizedError("send a key as 'Authorization: Bearer guthi_<keyid>_<secret>'")
        caller = await authenticate(request.app.state.engine.database, api_key.strip())
        # Calls that take parameters refuse unknown ones by their model; those without must do so, too.
        dependant = getattr(request.scope.get("route"), "dependant", None)
        if request.scope["query_string"] and not (dependant and dependant.query_params):
            raise InvalidInputError("this call takes no query parameters: leave out the ? and what follows it")
        return caller


caller_of = _CallerFromKey(description="guthi_<keyid>_<secret>")


async def _writer(caller: Annotated[Caller, Depends(caller_of)]) -> Caller:
    caller.must_write()
    return caller


Reader = Annotated[Caller, Depends(caller_of)]
"""Any live key."""
Writer = Annotated[Caller, Depends(_writer)]
"""A key whose role may change things."""
