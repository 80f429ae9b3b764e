"""The audit log: who changed what, when, through which request or job."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import Field

from api.answers import AuditEntry, Page, page_of
from api.context import AuditReader, CurrentEngine
from api.fields import Instant, PageQuery
from db.queries import sql

router = APIRouter(prefix="/api/audit", tags=["audit"])

RecordId = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]


class AuditQuery(PageQuery):
    table: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")] | None = None
    record_id: RecordId | None = None
    """The row's id; several parts, as of a membership, with a space between them."""
    user_id: UUID | None = None
    operation: Literal["INSERT", "UPDATE", "DELETE"] | None = None
    since: Instant | None = Field(default=None, alias="from")
    """This instant or later."""
    until: Instant | None = Field(default=None, alias="to")
    """Before this instant."""


@router.get("", response_model=Page[AuditEntry])
async def list_entries(engine: CurrentEngine, caller: AuditReader, query: Annotated[AuditQuery, Query()]) -> Response:
    """Newest first. An entry is there with the change itself; `position` follows within a minute or so."""
    async with engine.database.transaction(caller.tenant_id) as tx, tx.planned_anew():
        rows = [
            row
            async for row in sql.list_audit(
                tx.connection,
                tenant_id=tx.tenant_id,
                before=min(query.below, _floor(query.until, query.below)),
                since=_floor(query.since, UUID(int=0)),
                table=query.table,
                record_id=query.record_id,
                user_id=query.user_id,
                operation=query.operation,
                limit=query.limit + 1,
            )
        ]
    return page_of(AuditEntry, rows, query.limit, "entry_id")


def _floor(at: datetime | None, otherwise: UUID) -> UUID:
    """Below every uuidv7 of that instant or later: ids tell the time, to the millisecond."""
    return otherwise if at is None else UUID(int=max(0, int(at.timestamp() * 1_000)) << 80)
