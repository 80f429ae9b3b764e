"""New societies. Only the owner's connection can make one; each begins with an admin and that admin's key."""

import re
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from core.errors import InvalidInputError
from db.database import Transaction
from db.queries import sql
from domain.api_keys import new_api_key
from domain.events import record_change


@dataclass(frozen=True, slots=True)
class NewTenant:
    """`api_key` is shown this once: only its hash is kept."""

    tenant_id: UUID
    api_key: str


async def create_tenant(connection: asyncpg.Connection, name: str, prefix: str) -> NewTenant:
    """Raises `InvalidInputError` for a name or prefix that breaks the rules; then nothing was made."""
    if not name.strip() or len(name) > 200 or not name.isprintable():
        raise InvalidInputError("a society's name has 1 to 200 printable characters")
    if not re.fullmatch("[A-Z]{2,5}", prefix):
        raise InvalidInputError(f"a prefix is two to five capital letters, like UML, not {prefix!r}")
    async with connection.transaction():
        tenant_id = await sql.insert_tenant(connection, name=name.strip(), prefix=prefix)
        user = await sql.insert_user(
            connection, tenant_id=tenant_id, email="admin@localhost", name="Administrator", role="admin"
        )
        await record_change(Transaction(connection, tenant_id), "UserCreated", None, user)
        key = await new_api_key(connection, tenant_id, user["user_id"])
    return NewTenant(tenant_id, key.api_key)
