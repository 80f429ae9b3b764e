"""The one place where what PostgreSQL refuses becomes an error that a caller understands."""

import re

import asyncpg

from core.errors import DuplicateResourceError, GuthiError, InvalidInputError, UnavailableError
from db.retriable import is_retriable

_KEY = re.compile(r"Key \((?P<columns>.+?)\)=\((?P<values>.*)\)")


def translate(error: BaseException) -> GuthiError | None:
    """None for what is a defect of ours: the API shows that as 500."""
    if isinstance(error, GuthiError):
        return error
    if isinstance(error, asyncpg.UniqueViolationError):
        field, value = _last_key(error)
        return DuplicateResourceError(f"the {field} {value} is taken: choose another", field=field, value=value)
    if isinstance(error, asyncpg.ForeignKeyViolationError):
        field, value = _last_key(error)
        return InvalidInputError(f"the {field} {value} does not exist", field=field, value=value)
    if isinstance(error, asyncpg.DataError | asyncpg.IntegrityConstraintViolationError):
        return InvalidInputError(f"the database refused a value: {error}")
    if is_retriable(error):
        return UnavailableError("the database did not answer: nothing was changed, try again in a moment")
    return None


def _last_key(error: asyncpg.PostgresError) -> tuple[str, str]:
    """Column and value, without the tenant that leads every key."""
    found = _KEY.search(getattr(error, "detail", None) or "")
    if found is None:
        return "value", ""
    return found["columns"].split(", ")[-1], found["values"].split(", ")[-1]
