"""Agents: who collects from whom."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.answers import Agent, Page, answer, page_of
from api.context import CurrentEngine, Reader, Writer
from api.fields import Code, Email, In, PageQuery, Text
from db.queries import sql

router = APIRouter(prefix="/api/agents", tags=["agents"])


class NewAgent(In):
    code: Code
    name: Text
    email: Email | None = None


@router.post("", status_code=201, response_model=Agent)
async def create(engine: CurrentEngine, caller: Writer, body: NewAgent) -> Response:
    """A code that another agent has is 409 `DUPLICATE_RESOURCE`."""
    async with engine.database.transaction(caller.tenant_id) as tx:
        row = await sql.insert_agent(tx.connection, tenant_id=tx.tenant_id, **body.model_dump())
    return answer(Agent.of(row), 201)


@router.get("", response_model=Page[Agent])
async def list_agents(engine: CurrentEngine, caller: Reader, query: Annotated[PageQuery, Query()]) -> Response:
    """Oldest first."""
    async with engine.database.transaction(caller.tenant_id) as tx:
        rows = [
            row
            async for row in sql.list_agents(
                tx.connection, tenant_id=tx.tenant_id, after=query.above, limit=query.limit + 1
            )
        ]
    return page_of(Agent, rows, query.limit, "agent_id")
