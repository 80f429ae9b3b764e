"""Optimistic locking over HTTP: `version` in the body, or `If-Match` with the `ETag` of what was read."""

from typing import Annotated, Any

from fastapi import Depends, Header, Response
from pydantic import ConfigDict, Field

from api.answers import Agent, Member, Tier, User, answer
from api.fields import In, Version
from core.errors import ConcurrentModificationError, InvalidInputError, VersionMissingError

UNSET: Any = None


class Versioned(In):
    """A body that speaks of a version that was read. Without `version` it needs `If-Match`."""

    model_config = ConfigDict(json_schema_extra={"required": ["version"]})

    version: Version = Field(default=UNSET)


class Change(Versioned):
    """A PATCH's body: only what is named is changed."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 2, "required": ["version"]})

    def changes(self) -> dict[str, Any]:
        """Columns and their new values. Raises `InvalidInputError` when there are none."""
        named = self.model_dump(include=self.model_fields_set - {"version"})
        if not named:
            raise InvalidInputError("name at least one field to change beside the version")
        return named


async def _read_if_match(
    if_match: Annotated[
        str | None, Header(pattern=r'^"v[1-9][0-9]{0,8}"$', description='The `ETag` that was read: `"v3"`')
    ] = None,
) -> int | None:
    return None if if_match is None else int(if_match[2:-1])


IfMatch = Annotated[int | None, Depends(_read_if_match)]


def version_of(body: Versioned, if_match: int | None) -> int:
    """The version that a change is made to.

    Raises `VersionMissingError`, or `ConcurrentModificationError` when two are named that differ.
    """
    named = {version for version in (body.version, if_match) if version is not None}
    if not named:
        raise VersionMissingError("name the version that you read: `version` in the body, or If-Match with its ETag")
    if len(named) > 1:
        raise ConcurrentModificationError(
            "`version` and If-Match differ, so one of them is stale: read it again", sent=body.version, ifMatch=if_match
        )
    return named.pop()


def versioned(body: Tier | Agent | Member | User, status: int = 200) -> Response:
    """An answer with the `ETag` that `If-Match` takes."""
    return answer(body, status, ETag=f'"v{body.version}"')
