"""The one place where what PostgreSQL refuses becomes an error that a caller understands."""

import re

import asyncpg
from pydantic.alias_generators import to_camel

from core.errors import (
    DuplicateResourceError,
    GuthiError,
    InvalidInputError,
    InvalidStatusTransitionError,
    UnavailableError,
)
from db.retriable import is_retriable

# `"tiers_tenant_id_code_key"`. The message carries it always; the constraint's name may be missing behind Citus,
# and the key itself is never told where row-level security binds.
_KEY = re.compile(r'"\w+?_tenant_id_(?P<column>\w+?)_f?key\d*"')
# `relation "tiers" violates check constraint "tiers_benefit_amount_check"`
_CHECK = re.compile(r'relation "(?P<table>\w+)" violates check constraint "(?P=table)_(?P<column>\w+?)_check\d*"')
_NOT_NULL = re.compile(r'null value in column "(?P<column>\w+)"')
# `invalid input syntax for type uuid: "x"`
_VALUE = re.compile(r': "(?P<value>[^"]*)"$')
_LONGEST_ECHO = 100

# What the trigger check_transition says.
_TRANSITION = re.compile(r"a (?P<thing>\w+) that is (?P<current>\w+) cannot become (?P<wanted>\w+)")


def translate(error: BaseException) -> GuthiError | None:
    """None for what is a defect of ours: the API shows that as 500."""
    if isinstance(error, GuthiError):
        return error
    if isinstance(error, asyncpg.UniqueViolationError):
        field = _field(_KEY, error)
        return DuplicateResourceError(f"another one has this {field} already: choose another", field=field)
    if isinstance(error, asyncpg.ForeignKeyViolationError):
        field = _field(_KEY, error)
        return InvalidInputError(f"nothing has this {field}: check the id", field=field)
    if isinstance(error, asyncpg.NotNullViolationError):
        field = _field(_NOT_NULL, error)
        return InvalidInputError(f"{field} is missing", field=field)
    if isinstance(error, asyncpg.CheckViolationError) and (arrow := _TRANSITION.match(str(error))):
        return InvalidStatusTransitionError(**arrow.groupdict())
    if isinstance(error, asyncpg.CheckViolationError):
        field = _field(_CHECK, error)
        return InvalidInputError(f"{field} is not one of the values that are allowed", field=field)
    if isinstance(error, asyncpg.DataError | asyncpg.IntegrityConstraintViolationError):
        found = _VALUE.search(str(error))
        context = {"value": found["value"][:_LONGEST_ECHO]} if found else {}
        return InvalidInputError(f"the database refused a value: {error}", **context)
    if is_retriable(error):
        # Whether a commit that was cut had got through is not known: only the key makes asking again safe.
        return UnavailableError("the database did not answer: ask again in a moment, with the same Idempotency-Key")
    return None


def _field(pattern: re.Pattern[str], error: asyncpg.PostgresError) -> str:
    """The column, without the tenant that leads every key, as the API calls it."""
    found = pattern.search(str(error))
    return to_camel(found["column"]) if found else "value"
