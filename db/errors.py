"""The one place where what PostgreSQL refuses becomes an error that a caller understands."""

import re

import asyncpg

from core.errors import DuplicateResourceError, GuthiError, InvalidInputError, UnavailableError
from db.retriable import is_retriable

# `"tiers_tenant_id_code_key"`. The message carries it always; the constraint's name may be missing behind Citus,
# and the key itself is never told where row-level security binds.
_CONSTRAINT = re.compile(r'"\w+?_tenant_id_(?P<columns>\w+?)_f?key\d*"')


def translate(error: BaseException) -> GuthiError | None:
    """None for what is a defect of ours: the API shows that as 500."""
    if isinstance(error, GuthiError):
        return error
    if isinstance(error, asyncpg.UniqueViolationError):
        field = _field(error)
        return DuplicateResourceError(f"another one has this {field} already: choose another", field=field)
    if isinstance(error, asyncpg.ForeignKeyViolationError):
        field = _field(error)
        return InvalidInputError(f"nothing has this {field}: check the id", field=field)
    if isinstance(error, asyncpg.DataError | asyncpg.IntegrityConstraintViolationError):
        return InvalidInputError(f"the database refused a value: {error}")
    if is_retriable(error):
        # Whether a commit that was cut had got through is not known: only the key makes asking again safe.
        return UnavailableError("the database did not answer: ask again in a moment, with the same Idempotency-Key")
    return None


def _field(error: asyncpg.PostgresError) -> str:
    """The column, without the tenant that leads every key."""
    found = _CONSTRAINT.search(str(error))
    return found["columns"] if found else "value"
