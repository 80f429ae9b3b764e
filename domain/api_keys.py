"""API keys: `guthi_<keyid>_<secret>`. The id finds the row, the secret opens it, the hash is all that is kept."""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from core.errors import (
    InvalidInputError,
    InvalidStatusTransitionError,
    NotFoundError,
    PermissionDeniedError,
    SessionExpiredError,
    UnauthorizedError,
    UserInactiveError,
)
from db.database import Connection, Database, Transaction
from db.queries import sql
from domain.roles import PERMISSIONS, Permission
from domain.users import keep_an_admin

_FORM = re.compile(r"guthi_([0-9a-f]{32})_([0-9a-f]{64})")

LONGEST_LIFE = timedelta(days=3_653)

Key = Mapping[str, Any]
"""A row of `api_keys` without its hash."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request acts for, read anew with every request."""

    tenant_id: UUID
    user_id: UUID
    role: str
    key_id: UUID
    session_id: UUID | None = None
    """The pages' session that it acts through; None: it sent the key itself."""

    def must(self, permission: Permission) -> None:
        """Raises `PermissionDeniedError` when the role does not have it."""
        if permission not in PERMISSIONS[self.role]:
            raise PermissionDeniedError(
                f"the role {self.role} may not {permission}; ask an admin", role=self.role, permission=permission.name
            )


@dataclass(frozen=True, slots=True)
class NewKey:
    """`api_key` is shown this once: only its hash is kept."""

    row: Key
    api_key: str


async def new_api_key(
    connection: Connection, tenant_id: UUID, user_id: UUID, expires_at: datetime | None = None
) -> NewKey:
    """A key for a user. The secret has 256 random bits and cannot be shown again."""
    secret = secrets.token_hex(32)
    row = await sql.insert_api_key(
        connection, tenant_id=tenant_id, user_id=user_id, secret=secret.encode(), expires_at=expires_at
    )
    return NewKey(row, f"guthi_{row['key_id'].hex}_{secret}")


async def add_api_key(tx: Transaction, user_id: UUID, expires_at: datetime | None) -> NewKey:
    """Raises `NotFoundError` for the user, `InvalidInputError` for a time that is past or too far."""
    if await sql.get_user(tx.connection, tenant_id=tx.tenant_id, user_id=user_id) is None:
        raise NotFoundError("user", user_id)
    _check_time(expires_at)
    return await new_api_key(tx.connection, tx.tenant_id, user_id, expires_at)


async def rotate_api_key(tx: Transaction, key_id: UUID, expires_at: datetime | None, grace: timedelta) -> NewKey:
    """A new key for the old one's user; the old one opens for `grace` more.

    Without `expires_at` the new key lives as long as the old one was made for. Raises `NotFoundError`,
    `InvalidInputError`, `InvalidStatusTransitionError` for a key that no longer opens or was rotated before,
    and `LastAdminError`.
    """
    _check_time(expires_at)
    async with keep_an_admin(tx):
        old = await _lock(tx, key_id)
        if old["replaced_by"] or not old["is_live"]:
            raise InvalidStatusTransitionError("key", _state(old), "Rotated")
        if expires_at is None and old["expires_at"] is not None:
            expires_at = datetime.now(UTC) + (old["expires_at"] - old["created_at"])
        new = await new_api_key(tx.connection, tx.tenant_id, old["user_id"], expires_at)
        await sql.replace_api_key(
            tx.connection, tenant_id=tx.tenant_id, key_id=key_id, new_key_id=new.row["key_id"], grace=grace
        )
    return new


async def revoke_api_key(tx: Transaction, key_id: UUID) -> None:
    """It opens nothing from the commit on; again is fine. Raises `NotFoundError` and `LastAdminError`."""
    async with keep_an_admin(tx):
        await _lock(tx, key_id)
        await sql.revoke_api_key(tx.connection, tenant_id=tx.tenant_id, key_id=key_id)


async def authenticate(database: Database, api_key: str) -> Caller:
    """Who holds this key, in one round trip.

    Raises `UnauthorizedError`, which may be a `SessionExpiredError`, or `UserInactiveError`.
    """
    form = _FORM.fullmatch(api_key)
    if form is None:
        raise UnauthorizedError("send a key as 'Authorization: Bearer guthi_<keyid>_<secret>'")
    key_id, secret = UUID(form[1]), form[2].encode()
    async with database.connection() as connection:
        row = await sql.authenticate_key(connection, key_id=key_id, secret=secret)
        if row is None and await sql.is_expired_key(connection, key_id=key_id, secret=secret):
            raise SessionExpiredError("this key has expired: use the one it was rotated to, or ask an admin")
    if row is None:
        raise UnauthorizedError("this key opens nothing: it is wrong or revoked")
    if not row["is_active"]:
        raise UserInactiveError("this user was deactivated: ask an admin")
    return Caller(row["tenant_id"], row["user_id"], row["role"], key_id)


async def _lock(tx: Transaction, key_id: UUID) -> Key:
    row: Key | None = await sql.lock_api_key(tx.connection, tenant_id=tx.tenant_id, key_id=key_id)
    if row is None:
        raise NotFoundError("key", key_id)
    return row


def _state(key: Key) -> str:
    if key["revoked_at"]:
        return "Revoked"
    return "Rotated" if key["replaced_by"] else "Expired"


def _check_time(expires_at: datetime | None) -> None:
    now = datetime.now(UTC)
    if expires_at is not None and not now < expires_at < now + LONGEST_LIFE:
        raise InvalidInputError("expiresAt must lie ahead, at most ten years", field="expiresAt")
