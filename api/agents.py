"""Agents: who collects from whom."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import Field

from api.answers import Agent, Page, page_of
from api.context import CurrentEngine, TierManager, Viewer
from api.fields import Code, Email, In, PageQuery, Text
from api.versions import UNSET, Change, IfMatch, version_of, versioned
from core.errors import NotFoundError
from db.queries import sql
from domain.agents import update_agent
from domain.events import record_change

router = APIRouter(prefix="/api/agents", tags=["agents"])


class NewAgent(In):
    code: Code
    name: Text
    email: Email | None = None


class ChangeAgent(Change):
    name: Text = Field(default=UNSET)
    email: Email | None = None


@router.post("", status_code=201, response_model=Agent)
async def create(engine: CurrentEngine, caller: TierManager, body: NewAgent) -> Response:
    """A code that another agent has is 409 `DUPLICATE_RESOURCE`."""
    async with engine.database.transaction(caller.tenant_id) as tx:
        row = await sql.insert_agent(tx.connection, tenant_id=tx.tenant_id, **body.model_dump())
        await record_change(tx, "AgentCreated", None, row, caller.user_id)
    return versioned(Agent.of(row), 201)


@router.get("", response_model=Page[Agent])
async def list_agents(engine: CurrentEngine, caller: Viewer, query: Annotated[PageQuery, Query()]) -> Response:
    """Oldest first."""
    async with engine.database.transaction(caller.tenant_id) as tx:
        rows = [
            row
            async for row in sql.list_agents(
                tx.connection, tenant_id=tx.tenant_id, after=query.above, limit=query.limit + 1
            )
        ]
    return page_of(Agent, rows, query.limit, "agent_id")


@router.get("/{agent_id}", response_model=Agent)
async def show(engine: CurrentEngine, caller: Viewer, agent_id: UUID) -> Response:
    async with engine.database.transaction(caller.tenant_id) as tx:
        row = await sql.get_agent(tx.connection, tenant_id=tx.tenant_id, agent_id=agent_id)
    if row is None:
        raise NotFoundError("agent", agent_id)
    return versioned(Agent.of(row))


@router.patch("/{agent_id}", response_model=Agent)
async def change(
    engine: CurrentEngine, caller: TierManager, agent_id: UUID, body: ChangeAgent, if_match: IfMatch
) -> Response:
    """`email` may be null. A stale version is 409 `CONCURRENT_MODIFICATION`."""
    version, changes = version_of(body, if_match), body.changes()
    async with engine.database.transaction(caller.tenant_id) as tx:
        row = await update_agent(tx, agent_id, version, changes, caller.user_id)
    return versioned(Agent.of(row))
