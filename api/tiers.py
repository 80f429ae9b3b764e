"""Tiers: what members owe when one of them dies."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.answers import Page, Tier, answer, page_of
from api.context import CurrentEngine, Reader, Writer
from api.fields import Code, In, Money, PageQuery, Text
from db.queries import sql

router = APIRouter(prefix="/api/tiers", tags=["tiers"])


class NewTier(In):
    code: Code
    name: Text
    contribution_amount: Money
    benefit_amount: Money


@router.post("", status_code=201, response_model=Tier)
async def create(engine: CurrentEngine, caller: Writer, body: NewTier) -> Response:
    """A code that another tier has is 409 `DUPLICATE_RESOURCE`."""
    async with engine.database.transaction(caller.tenant_id) as tx:
        row = await sql.insert_tier(tx.connection, tenant_id=tx.tenant_id, **body.model_dump())
    return answer(Tier.of(row), 201)


@router.get("", response_model=Page[Tier])
async def list_tiers(engine: CurrentEngine, caller: Reader, query: Annotated[PageQuery, Query()]) -> Response:
    """Oldest first."""
    async with engine.database.transaction(caller.tenant_id) as tx:
        rows = [
            row
            async for row in sql.list_tiers(
                tx.connection, tenant_id=tx.tenant_id, after=query.above, limit=query.limit + 1
            )
        ]
    return page_of(Tier, rows, query.limit, "tier_id")
