"""The event store: what changed, appended in the transaction of the change.

An aggregate is a row with a version; each version is one event. An event's payload is what the change set,
in the shape that `EVENT_TYPES` names, so that its payloads merged in order are the row again (`domain.replay`).

A shape that gets a new meaning, not just a new field, gets an upcast: a function from the older payload to the
next. Stored events are never altered.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from db.database import Transaction
from db.queries import sql

UNSET: Any = None
"""A field that a payload does not name: the change did not touch it."""

Row = Mapping[str, Any]


class Payload(BaseModel):
    """JSON in camelCase, times in RFC 3339, money as decimal strings; nothing that is not known."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class User(Payload):
    email: str = UNSET
    name: str = UNSET
    role: str = UNSET
    is_active: bool = UNSET


class Tier(Payload):
    code: str = UNSET
    name: str = UNSET
    contribution_amount: Decimal = UNSET
    benefit_amount: Decimal = UNSET


class Agent(Payload):
    code: str = UNSET
    name: str = UNSET
    email: str | None = UNSET


class Member(Payload):
    member_number: str | None = UNSET
    full_name: str = UNSET
    gender: str = UNSET
    status: str = UNSET
    tier_id: UUID = UNSET
    agent_id: UUID | None = UNSET
    phone: str | None = UNSET
    email: str | None = UNSET
    joined_on: date | None = UNSET
    status_reason: str | None = UNSET
    reviewed_at: datetime | None = UNSET
    approved_at: datetime | None = UNSET
    died_on: date | None = UNSET


class Cycle(Payload):
    cycle_code: str = UNSET
    claim_id: UUID | None = UNSET
    tier_id: UUID = UNSET
    deceased_member_id: UUID = UNSET
    cycle_status: str = UNSET
    contribution_amount: Decimal = UNSET
    benefit_amount: Decimal = UNSET
    collected_amount: Decimal = UNSET
    as_of: datetime = UNSET
    start_date: date = UNSET
    deadline: date = UNSET
    total_members: int | None = UNSET
    paid_members: int = UNSET
    failed_members: int = UNSET


class ExplainedCycle(Cycle):
    reason: str | None = UNSET


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A table whose rows have a version: the column of its id, and what of it the events carry."""

    name: str
    key: str
    state: type[Payload]


@dataclass(frozen=True, slots=True)
class EventType:
    """`shape` may hold more than the aggregate's state: facts that no column keeps."""

    aggregate: Aggregate
    shape: type[Payload]
    upcasts: tuple[Callable[[dict[str, Any]], dict[str, Any]], ...] = ()

    @property
    def version(self) -> int:
        return len(self.upcasts) + 1

    def read(self, version: int, payload: dict[str, Any]) -> dict[str, Any]:
        """What the event set: columns to values. Raises `ValueError` for a payload that has not its shape."""
        for upcast in self.upcasts[version - 1 :]:
            payload = upcast(payload)
        told = self.shape.model_validate(payload)
        return {
            name: getattr(told, name) for name in told.model_fields_set if name in self.aggregate.state.model_fields
        }


AGGREGATES = {
    aggregate.name: aggregate
    for aggregate in (
        Aggregate("user", "user_id", User),
        Aggregate("tier", "tier_id", Tier),
        Aggregate("agent", "agent_id", Agent),
        Aggregate("member", "member_id", Member),
        Aggregate("contribution_cycle", "cycle_id", Cycle),
    )
}


def _plain(name: str, *event_types: str) -> dict[str, EventType]:
    aggregate = AGGREGATES[name]
    return {event_type: EventType(aggregate, aggregate.state) for event_type in event_types}


EVENT_TYPES: Mapping[str, EventType] = {
    # ...Adopted: the whole state of a row that stood before its events were kept; made by adopt_rows() in SQL.
    **_plain("user", "UserAdopted", "UserCreated", "UserChanged"),
    **_plain("tier", "TierAdopted", "TierCreated", "TierChanged"),
    **_plain("agent", "AgentAdopted", "AgentCreated", "AgentChanged"),
    # MemberImported is also written set-based, by insert_imported_members.
    **_plain("member", "MemberAdopted", "MemberImported", "MemberRegistered", "MemberChanged"),
    **_plain("contribution_cycle", "ContributionCycleAdopted", "ContributionCycleInitiated"),
    **_plain("contribution_cycle", "ContributionCycleRetried", "ContributionCycleActivated"),
    **_plain("contribution_cycle", "ContributionCycleCancelled", "ContributionCycleCompleted"),
    "ContributionCycleFailed": EventType(AGGREGATES["contribution_cycle"], ExplainedCycle),
}


async def record_change(
    tx: Transaction, event_type: str, old: Row | None, new: Row, by: UUID | None = None, **facts: Any
) -> None:
    """Append what differs between a row before (None: it is new) and after, as the event of its new version.

    >>> row = await sql.insert_tier(tx.connection, ...)
    >>> await record_change(tx, "TierCreated", None, row, by=caller.user_id)
    """
    aggregate = EVENT_TYPES[event_type].aggregate
    columns = (name for name in aggregate.state.model_fields if old is None or old[name] != new[name])
    changed = {name: new[name] for name in columns}
    await append_event(tx, event_type, new[aggregate.key], new["version"], {**changed, **facts}, by)


async def append_event(
    tx: Transaction,
    event_type: str,
    aggregate_id: UUID,
    version: int,
    payload: Mapping[str, Any],
    created_by: UUID | None = None,
) -> None:
    """`version` is the one that the aggregate's row has now: each change of it is one event.

    Raises `KeyError` for an unknown event type and `ValueError` for a payload that has not its shape: defects.
    """
    known = EVENT_TYPES[event_type]
    await sql.append_event(
        tx.connection,
        tenant_id=tx.tenant_id,
        aggregate_type=known.aggregate.name,
        aggregate_id=aggregate_id,
        version=version,
        event_type=event_type,
        payload_version=known.version,
        payload=known.shape(**payload).model_dump_json(by_alias=True, exclude_unset=True),
        created_by=created_by,
    )
