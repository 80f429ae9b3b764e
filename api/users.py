"""Users and their keys: who may act for the society. Only admins come here."""

from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from api.answers import IssuedKey, Key, Page, User, answer, page_of
from api.context import CurrentEngine, UserManager
from api.fields import Email, In, Instant, PageQuery, Text
from api.versions import UNSET, Change, IfMatch, version_of, versioned
from core.errors import NotFoundError
from db.queries import sql
from domain.api_keys import NewKey, add_api_key, revoke_api_key, rotate_api_key
from domain.events import record_change
from domain.roles import Role
from domain.users import update_user

router = APIRouter(prefix="/api", tags=["users"])

_SHOWN_ONCE = {"Cache-Control": "no-store"}


class NewUser(In):
    email: Email
    name: Text
    role: Role


class ChangeUser(Change):
    name: Text = Field(default=UNSET)
    role: Role = Field(default=UNSET)
    is_active: Annotated[bool, Field(strict=True)] = Field(default=UNSET)


class WantedKey(In):
    expires_at: Instant | None = None
    """Null: for ever, or for a rotated key as long as the old one was made for."""


@router.post("/users", status_code=201, response_model=User)
async def create(engine: CurrentEngine, caller: UserManager, body: NewUser) -> Response:
    """An e-mail address that another user has is 409 `DUPLICATE_RESOURCE`. The user needs a key to do anything."""
    async with engine.database.transaction(caller.tenant_id) as tx:
        row = await sql.insert_user(tx.connection, tenant_id=tx.tenant_id, **body.model_dump())
        await record_change(tx, "UserCreated", None, row, caller.user_id)
    return versioned(User.of(row), 201)


@router.get("/users", response_model=Page[User])
async def list_users(engine: CurrentEngine, caller: UserManager, query: Annotated[PageQuery, Query()]) -> Response:
    """Oldest first."""
    async with engine.database.transaction(caller.tenant_id) as tx:
        rows = [
            row
            async for row in sql.list_users(
                tx.connection, tenant_id=tx.tenant_id, after=query.above, limit=query.limit + 1
            )
        ]
    return page_of(User, rows, query.limit, "user_id")


@router.get("/users/{user_id}", response_model=User)
async def show(engine: CurrentEngine, caller: UserManager, user_id: UUID) -> Response:
    async with engine.database.transaction(caller.tenant_id) as tx:
        row = await sql.get_user(tx.connection, tenant_id=tx.tenant_id, user_id=user_id)
    if row is None:
        raise NotFoundError("user", user_id)
    return versioned(User.of(row))


@router.patch("/users/{user_id}", response_model=User)
async def change(
    engine: CurrentEngine, caller: UserManager, user_id: UUID, body: ChangeUser, if_match: IfMatch
) -> Response:
    """It holds from the user's next request on. The last admin stays one: 409 `LAST_ADMIN`."""
    version, changes = version_of(body, if_match), body.changes()
    async with engine.database.transaction(caller.tenant_id) as tx:
        row = await update_user(tx, user_id, version, changes, caller.user_id)
    return versioned(User.of(row))


@router.post("/users/{user_id}/keys", status_code=201, response_model=IssuedKey)
async def add_key(engine: CurrentEngine, caller: UserManager, user_id: UUID, body: WantedKey | None = None) -> Response:
    """The key is shown in this answer and never again: only its hash is kept."""
    wanted = body or WantedKey()
    async with engine.database.transaction(caller.tenant_id) as tx:
        key = await add_api_key(tx, user_id, wanted.expires_at)
    return _issued(key)


@router.get("/keys", response_model=Page[Key])
async def list_keys(engine: CurrentEngine, caller: UserManager, query: Annotated[PageQuery, Query()]) -> Response:
    """Of all users, oldest first; those that no longer open, too. What opens is in none of them."""
    async with engine.database.transaction(caller.tenant_id) as tx:
        rows = [
            row
            async for row in sql.list_api_keys(
                tx.connection, tenant_id=tx.tenant_id, after=query.above, limit=query.limit + 1
            )
        ]
    return page_of(Key, rows, query.limit, "key_id")


@router.post("/keys/{key_id}/rotate", status_code=201, response_model=IssuedKey)
async def rotate(
    request: Request, engine: CurrentEngine, caller: UserManager, key_id: UUID, body: WantedKey | None = None
) -> Response:
    """A new key for the same user; the old one opens for `GUTHI_KEY_GRACE_SECONDS` more, while its clients switch."""
    wanted = body or WantedKey()
    grace = timedelta(seconds=request.app.state.settings.key_grace_seconds)
    async with engine.database.transaction(caller.tenant_id) as tx:
        key = await rotate_api_key(tx, key_id, wanted.expires_at, grace)
    return _issued(key)


@router.delete("/keys/{key_id}", status_code=204)
async def revoke(engine: CurrentEngine, caller: UserManager, key_id: UUID) -> Response:
    """Once this has answered, the key opens nothing. The last admin's last key stays: 409 `LAST_ADMIN`."""
    async with engine.database.transaction(caller.tenant_id) as tx:
        await revoke_api_key(tx, key_id)
    return Response(status_code=204)


def _issued(key: NewKey) -> Response:
    return answer(IssuedKey.of({**key.row, "api_key": key.api_key}), 201, **_SHOWN_ONCE)
