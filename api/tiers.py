"""Tiers: what members owe when one of them dies."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import Field

from api.answers import Page, Tier, page_of
from api.context import CurrentEngine, TierManager, Viewer
from api.fields import Code, In, Money, PageQuery, Text
from api.versions import UNSET, Change, IfMatch, version_of, versioned
from core.errors import NotFoundError
from db.queries import sql
from domain.events import record_change
from domain.tiers import update_tier

router = APIRouter(prefix="/api/tiers", tags=["tiers"])


class NewTier(In):
    code: Code
    name: Text
    contribution_amount: Money
    benefit_amount: Money


class ChangeTier(Change):
    name: Text = Field(default=UNSET)
    contribution_amount: Money = Field(default=UNSET)
    benefit_amount: Money = Field(default=UNSET)


@router.post("", status_code=201, response_model=Tier)
async def create(engine: CurrentEngine, caller: TierManager, body: NewTier) -> Response:
    """A code that another tier has is 409 `DUPLICATE_RESOURCE`."""
    async with engine.database.transaction(caller.tenant_id) as tx:
        row = await sql.insert_tier(tx.connection, tenant_id=tx.tenant_id, **body.model_dump())
        await record_change(tx, "TierCreated", None, row, caller.user_id)
    return versioned(Tier.of(row), 201)


@router.get("", response_model=Page[Tier])
async def list_tiers(engine: CurrentEngine, caller: Viewer, query: Annotated[PageQuery, Query()]) -> Response:
    """Oldest first."""
    async with engine.database.transaction(caller.tenant_id) as tx:
        rows = [
            row
            async for row in sql.list_tiers(
                tx.connection, tenant_id=tx.tenant_id, after=query.above, limit=query.limit + 1
            )
        ]
    return page_of(Tier, rows, query.limit, "tier_id")


@router.get("/{tier_id}", response_model=Tier)
async def show(engine: CurrentEngine, caller: Viewer, tier_id: UUID) -> Response:
    async with engine.database.transaction(caller.tenant_id) as tx:
        row = await sql.get_tier(tx.connection, tenant_id=tx.tenant_id, tier_id=tier_id)
    if row is None:
        raise NotFoundError("tier", tier_id)
    return versioned(Tier.of(row))


@router.patch("/{tier_id}", response_model=Tier)
async def change(
    engine: CurrentEngine, caller: TierManager, tier_id: UUID, body: ChangeTier, if_match: IfMatch
) -> Response:
    """Amounts hold for the cycles that start from now on. A stale version is 409 `CONCURRENT_MODIFICATION`."""
    version, changes = version_of(body, if_match), body.changes()
    async with engine.database.transaction(caller.tenant_id) as tx:
        row = await update_tier(tx, tier_id, version, changes, caller.user_id)
    return versioned(Tier.of(row))
