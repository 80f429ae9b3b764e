"""The kinds of value that requests bring and answers carry: each says its rule once."""

import base64
import re
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic.alias_generators import to_camel

MOST_MONEY = Decimal("999999999999.99")  # numeric(14, 2)
_MONEY = r"^([1-9][0-9]{0,11}(\.[0-9]{1,2})?|0\.(0[1-9]|[1-9][0-9]?))$"
_TEXT = r"^[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?$"


class In(BaseModel):
    """A request's body or query: camelCase, and nothing that is not known."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True)


class Out(BaseModel):
    """An answer: camelCase, times in RFC 3339 UTC, money as decimal strings."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """From a row that has a column for each field, and perhaps more."""
        return cls(**{name: row[name] for name in cls.model_fields})


def _to_whole(value: object) -> object:
    """JSON knows one kind of number: 15.0 is the integer 15. Neither "15" nor true is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_to_whole)
"""For a strict integer in a body."""

Version = Annotated[int, Field(ge=1, le=2**31 - 1, strict=True), WHOLE]
"""The row's version that was read: a change of any other one is refused."""


def _to_day(value: object) -> date:
    if not isinstance(value, str) or not re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        raise ValueError("must be a date like 2025-01-31")
    return date.fromisoformat(value)


Day = Annotated[date, BeforeValidator(_to_day)]
"""A date and nothing else: pydantic alone would take a number of seconds for one."""


def _to_money(value: object) -> Decimal:
    value = _to_whole(value)
    if isinstance(value, bool) or not isinstance(value, int | str) or not re.fullmatch(_MONEY, str(value)):
        raise ValueError(f'must be a decimal string such as "100.00": more than 0, at most {MOST_MONEY}, two places')
    return Decimal(value)


Money = Annotated[
    Decimal,
    BeforeValidator(_to_money),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": _MONEY},
                {"type": "integer", "minimum": 1, "maximum": 999_999_999_999},
            ],
            "examples": ["100.00"],
        },
        mode="validation",
    ),
]
"""More than zero, at most 999999999999.99, no more than two places."""

Text = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=_TEXT)]
"""A line of text that begins and ends with something visible."""

Reason = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=_TEXT)]
"""Why somebody decided as they did."""

Code = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,19}$")]
Phone = Annotated[str, StringConstraints(pattern=r"^\+?[0-9][0-9 ()-]{4,24}$")]
Email = Annotated[str, StringConstraints(max_length=254, pattern=r"^[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+$")]
Search = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$")]
Gender = Literal["F", "M", "O"]
MemberStatus = Literal["Pending", "UnderReview", "Approved", "Active", "Inactive", "Suspended", "Deceased", "Rejected"]
CycleStatus = Literal["Initializing", "Active", "Completed", "Failed", "Cancelled"]


def _decode_cursor(text: object) -> UUID:
    if not isinstance(text, str) or not re.fullmatch("[A-Za-z0-9_-]{22}", text):
        raise ValueError("must be the `next` of the page before, as it was given")
    return UUID(bytes=base64.urlsafe_b64decode(text + "=="))


def encode_cursor(last: UUID) -> str:
    """Opaque, so that nobody builds on what is in it."""
    return base64.urlsafe_b64encode(last.bytes).decode().rstrip("=")


Cursor = Annotated[
    UUID,
    BeforeValidator(_decode_cursor),
    WithJsonSchema({"type": "string", "pattern": "^[A-Za-z0-9_-]{22}$"}),
]


def _only_rfc_3339(value: object) -> object:
    if not isinstance(value, str) or not re.match(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d", value):
        raise ValueError("must be a time like 2025-01-31T12:00:00Z")
    return value


Instant = Annotated[AwareDatetime, BeforeValidator(_only_rfc_3339)]
"""RFC 3339 with a zone; a number is no time here."""


class PageQuery(In):
    """Keyset paging: `after` is the `next` of the page before; the first and the last page cost the same."""

    limit: Annotated[int, Field(ge=1, le=1_000)] = 50
    after: Cursor | None = None

    @property
    def above(self) -> UUID:
        """Where an ascending page begins. Never NULL: `x IS NULL OR key > x` would cost the index its bound."""
        return self.after or UUID(int=0)

    @property
    def below(self) -> UUID:
        """Where a descending page begins."""
        return self.after or UUID(int=2**128 - 1)
