"""Users: who may act for a society. Somebody always can: the last admin cannot be taken away."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import UUID

from core.errors import LastAdminError
from db.database import Transaction
from db.queries import sql
from domain.events import append_event
from domain.versions import refuse_stale

User = Mapping[str, Any]
"""A row of `users`."""


async def update_user(
    tx: Transaction, user_id: UUID, version: int, changes: Mapping[str, Any], by: UUID | None = None
) -> User:
    """Change `name`, `role` or `is_active`; what they allow holds from the next request on.

    Raises `NotFoundError`, `ConcurrentModificationError`, `LastAdminError`.
    """
    async with keep_an_admin(tx):
        changed: User | None = await sql.update_user(
            tx.connection,
            tenant_id=tx.tenant_id,
            user_id=user_id,
            version=version,
            **{column: changes.get(column) for column in ("name", "role", "is_active")},
        )
        if changed is None:
            row = await sql.get_user(tx.connection, tenant_id=tx.tenant_id, user_id=user_id)
            refuse_stale("user", user_id, row, version)
    await append_event(tx, "UserChanged", user_id, changed["version"], {name: changed[name] for name in changes}, by)
    return changed


@contextlib.asynccontextmanager
async def keep_an_admin(tx: Transaction) -> AsyncIterator[None]:
    """Refuse what would leave no active admin with a key that does not expire. One at a time in a society.

    Raises `LastAdminError`, which undoes the transaction. Where there was none before, nothing is refused.
    """
    await sql.lock_admins(tx.connection, tenant_id=tx.tenant_id)
    had_one = await sql.keeps_an_admin(tx.connection, tenant_id=tx.tenant_id)
    yield
    if had_one and not await sql.keeps_an_admin(tx.connection, tenant_id=tx.tenant_id):
        raise LastAdminError(
            "no active admin would hold a key that does not expire: give another admin such a key first"
        )
