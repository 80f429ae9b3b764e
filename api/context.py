"""What every endpoint is given: the engine, and who is calling, once they may."""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer

from api.sessions import session_of
from core.errors import InvalidInputError, UnauthorizedError
from db.database import identify_actor
from domain.api_keys import Caller, authenticate
from domain.roles import Permission
from jobs.engine.engine import Engine


async def _engine(request: Request) -> Engine:  # async, as FastAPI hops to a thread for what is not
    engine: Engine = request.app.state.engine
    return engine


CurrentEngine = Annotated[Engine, Depends(_engine)]


class May(HTTPBearer):
    """Documented as a bearer scheme, gives the Caller. One dependency for all of it, as each costs time.

    `Annotated[Caller, Depends(May(Permission.VIEW))]` guards a call; `permission_of` reads it from the route.
    """

    def __init__(self, permission: Permission) -> None:
        super().__init__(scheme_name="ApiKey", description="guthi_<keyid>_<secret>")
        self.permission = permission

    async def __call__(self, request: Request) -> Caller:  # type: ignore[override]  # FastAPI only calls it
        state = request.app.state
        caller = await _caller(request)
        identify_actor(caller.user_id, caller.key_id)
        request.scope["tenant_id"] = caller.tenant_id
        await state.rate_limits.take(request.scope, caller.key_id)
        caller.must(self.permission)
        # Calls that take parameters refuse unknown ones by their model; those without must do so, too.
        dependant = getattr(request.scope.get("route"), "dependant", None)
        if request.scope["query_string"] and not (dependant and dependant.query_params):
            raise InvalidInputError("this call takes no query parameters: leave out the ? and what follows it")
        return caller


async def _caller(request: Request) -> Caller:
    """By the key, or by the session of the pages. Raises `UnauthorizedError` or `UserInactiveError`."""
    state = request.app.state
    if "Authorization" not in request.headers and (session := session_of(request)):
        caller: Caller = await state.sessions.authenticate(session)
        return caller
    scheme, _, api_key = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise UnauthorizedError("send a key as 'Authorization: Bearer guthi_<keyid>_<secret>'")
    return await authenticate(state.engine.database, api_key.strip())


may_view = May(Permission.VIEW)

Viewer = Annotated[Caller, Depends(may_view)]
TierManager = Annotated[Caller, Depends(May(Permission.MANAGE_TIERS))]
MemberManager = Annotated[Caller, Depends(May(Permission.MANAGE_MEMBERS))]
CycleStarter = Annotated[Caller, Depends(May(Permission.START_CYCLES))]
JobSteerer = Annotated[Caller, Depends(May(Permission.STEER_JOBS))]
MaintenanceRunner = Annotated[Caller, Depends(May(Permission.RUN_MAINTENANCE))]
Registrar = Annotated[Caller, Depends(May(Permission.REGISTER_MEMBERS))]
Reviewer = Annotated[Caller, Depends(May(Permission.REVIEW_MEMBERS))]
Decider = Annotated[Caller, Depends(May(Permission.DECIDE_MEMBERS))]
EventReader = Annotated[Caller, Depends(May(Permission.READ_EVENTS))]
AuditReader = Annotated[Caller, Depends(May(Permission.READ_AUDIT))]
UserManager = Annotated[Caller, Depends(May(Permission.MANAGE_USERS))]


def permission_of(route: APIRoute) -> Permission | None:
    """What a call's guard asks for. None: the call is open to everybody."""
    asked: list[Dependant] = [route.dependant]
    while asked:
        dependant = asked.pop()
        if isinstance(dependant.call, May):
            return dependant.call.permission
        asked += dependant.dependencies
    return None
