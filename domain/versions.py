"""Optimistic locking: a change names the version that it was made to, and a row has moved on or has not."""

from collections.abc import Mapping
from typing import Any, NoReturn
from uuid import UUID

from core.errors import ConcurrentModificationError, NotFoundError, Thing


def refuse_stale(thing: Thing, thing_id: UUID, row: Mapping[str, Any] | None, sent: int) -> NoReturn:
    """Why an UPDATE with a version found no row; `row` is what is there now.

    Raises `NotFoundError` or `ConcurrentModificationError`.
    """
    if row is None:
        raise NotFoundError(thing, thing_id)
    raise ConcurrentModificationError(
        f"somebody changed this {thing} first: read it again", version=row["version"], sent=sent
    )
