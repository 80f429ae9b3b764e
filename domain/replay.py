"""Replay: every aggregate rebuilt from its events, and held against its row."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from db.database import Connection
from db.queries import sql
from domain.events import AGGREGATES, EVENT_TYPES

_NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Difference:
    """`field` is a field of the payload, `version`, or `events` when they cannot be read."""

    tenant_id: UUID
    aggregate_type: str
    aggregate_id: UUID
    field: str
    events_say: str
    row_says: str


@dataclass(slots=True)
class Replayed:
    """What was walked so far."""

    aggregates: int = 0
    events: int = 0


async def replay(connection: Connection, tenant_id: UUID, walked: Replayed) -> AsyncIterator[Difference]:
    """The differences of one tenant, streamed: memory has a bound. All of it is one snapshot."""
    async with connection.transaction(), sql.replayable_cursor(connection, tenant_id=tenant_id) as cursor:
        async for row in cursor:
            events = orjson.loads(row["events"] or "[]")
            walked.aggregates += 1
            walked.events += len(events)
            for field, events_say, row_says in _compare(row, events):
                kind, aggregate_id = row["aggregate_type"], row["aggregate_id"]
                yield Difference(tenant_id, kind, aggregate_id, field, events_say, row_says)


def _compare(row: Mapping[str, Any], events: Sequence[Any]) -> list[tuple[str, str, str]]:
    if row["state"] is None:
        return [("version", str(events[-1][0]), _NOTHING)]
    versions = [event[0] for event in events]
    first = versions[0] if events and events[0][1].endswith("Adopted") else 1
    if versions != list(range(first, row["version"] + 1)):
        return [("version", ", ".join(map(str, versions)) or _NOTHING, str(row["version"]))]
    try:
        told = _fold(events)
    except (KeyError, ValueError) as error:
        return [("events", f"{type(error).__name__}: {error}", "")]
    shape = AGGREGATES[row["aggregate_type"]].state
    names = {field.alias: name for name, field in shape.model_fields.items()}
    stands = orjson.loads(row["state"])
    read = shape.model_validate({alias: value for alias, value in stands.items() if alias in names})
    return [
        (alias, str(told.get(name, _NOTHING)), str(stands[alias]))
        for alias, name in ((alias, names.get(alias, "")) for alias in stands)
        if name not in told or told[name] != getattr(read, name)
    ]


def _fold(events: Sequence[Any]) -> dict[str, Any]:
    """Each payload holds what its change set, so the state is all of them merged in order."""
    state: dict[str, Any] = {}
    for _, event_type, payload_version, payload in events:
        state |= EVENT_TYPES[event_type].read(payload_version, payload)
    return state
