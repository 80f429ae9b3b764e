"""Who am I, and what may I do: what a page or a terminal asks first."""

from uuid import UUID

from fastapi import APIRouter, Response

from api.answers import answer
from api.context import CurrentEngine, Viewer
from api.fields import Out
from db.queries import sql
from domain.roles import PERMISSIONS, Role

router = APIRouter(prefix="/api/me", tags=["me"])


class Me(Out):
    user_id: UUID
    name: str
    email: str
    role: Role
    permissions: list[str]
    """Names such as `STEER_JOBS`, as the refusals of calls have them."""
    tenant_id: UUID
    tenant_name: str


@router.get("", response_model=Me)
async def show(engine: CurrentEngine, caller: Viewer) -> Response:
    """The caller, as the key says."""
    async with engine.database.transaction(caller.tenant_id) as tx:
        row = await sql.get_user_and_tenant(tx.connection, tenant_id=tx.tenant_id, user_id=caller.user_id)
    permissions = sorted(permission.name for permission in PERMISSIONS[caller.role])
    return answer(Me.of({**row, "role": caller.role, "permissions": permissions}))
