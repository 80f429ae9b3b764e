"""API keys: `guthi_<keyid>_<secret>`. The id finds the row, the secret opens it, the hash is all that is kept."""

import re
import secrets
from dataclasses import dataclass
from uuid import UUID

from core.errors import PermissionDeniedError, UnauthorizedError, UserInactiveError
from db.database import Connection, Database
from db.queries import sql

_FORM = re.compile(r"guthi_([0-9a-f]{32})_([0-9a-f]{64})")

ROLES_THAT_WRITE = frozenset({"admin", "operator"})


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request acts for, read anew with every request."""

    tenant_id: UUID
    user_id: UUID
    role: str

    def must_write(self) -> None:
        """Raises `PermissionDeniedError` for a role that may only look."""
        if self.role not in ROLES_THAT_WRITE:
            raise PermissionDeniedError(f"the role {self.role} may not do this; ask an admin", role=self.role)


async def new_api_key(connection: Connection, tenant_id: UUID, user_id: UUID) -> str:
    """A key for a user. The secret has 256 random bits and cannot be shown again."""
    secret = secrets.token_hex(32)
    key_id: UUID = await sql.insert_api_key(connection, tenant_id=tenant_id, user_id=user_id, secret=secret.encode())
    return f"guthi_{key_id.hex}_{secret}"


async def authenticate(database: Database, api_key: str) -> Caller:
    """Who holds this key, in one round trip. Raises `UnauthorizedError` or `UserInactiveError`."""
    form = _FORM.fullmatch(api_key)
    if form is None:
        raise UnauthorizedError("send a key as 'Authorization: Bearer guthi_<keyid>_<secret>'")
    async with database.connection() as connection:
        row = await sql.authenticate_key(connection, key_id=UUID(form[1]), secret=form[2].encode())
    if row is None:
        raise UnauthorizedError("this key opens nothing: it is wrong, revoked or expired")
    if not row["is_active"]:
        raise UserInactiveError("this user was deactivated: ask an admin")
    return Caller(row["tenant_id"], row["user_id"], row["role"])
