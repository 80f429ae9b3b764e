"""A member's way through the society: each step is a call, follows one arrow of docs/states.md, and is made once."""

import hashlib
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict

from api.answers import Member
from api.context import CurrentEngine, Decider, MemberManager, Registrar, Reviewer
from api.fields import Day, Email, Gender, In, Phone, Reason, Text
from api.idempotency import PARAMETER, IdempotencyKey, once
from api.versions import IfMatch, Versioned, version_of, versioned
from db.database import Transaction
from domain.api_keys import Caller
from domain.idempotency_keys import StoredAnswer
from domain.members import NewMember, register_member, take_step
from jobs.engine.engine import Engine

router = APIRouter(prefix="/api/members", tags=["members"])


class Register(In):
    full_name: Text
    gender: Gender
    tier_id: UUID
    agent_id: UUID | None = None
    phone: Phone | None = None
    email: Email | None = None


class Step(Versioned):
    reason: Reason | None = None


class StepWithReason(Versioned):
    model_config = ConfigDict(json_schema_extra={"required": ["version", "reason"]})

    reason: Reason


class Death(Step):
    died_on: Day | None = None
    """Null: today, in UTC."""


@router.post("", status_code=201, response_model=Member, openapi_extra=PARAMETER)
async def register(
    request: Request, engine: CurrentEngine, caller: Registrar, key: IdempotencyKey, body: Register
) -> Response:
    """An application: the member is `Pending`, has no number yet and owes nothing."""

    async def act(tx: Transaction) -> StoredAnswer:
        shown = Member.of(await register_member(tx, NewMember(**body.model_dump()), caller.user_id))
        return StoredAnswer(201, f"{router.prefix}/{shown.member_id}", shown.model_dump_json(by_alias=True))

    content = hashlib.sha256(body.model_dump_json().encode()).digest()
    return await once(engine.database, caller, key, request, content, act)


@router.post("/{member_id}/review", response_model=Member)
async def review(engine: CurrentEngine, caller: Reviewer, member_id: UUID, body: Step, if_match: IfMatch) -> Response:
    """`Pending` becomes `UnderReview`."""
    return await _take(engine, caller, member_id, "review", body, if_match)


@router.post("/{member_id}/approve", response_model=Member)
async def approve(engine: CurrentEngine, caller: Decider, member_id: UUID, body: Step, if_match: IfMatch) -> Response:
    """`UnderReview` becomes `Approved` and is given the next member number, for good."""
    return await _take(engine, caller, member_id, "approve", body, if_match)


@router.post("/{member_id}/activate", response_model=Member)
async def activate(
    engine: CurrentEngine, caller: MemberManager, member_id: UUID, body: Step, if_match: IfMatch
) -> Response:
    """`Approved` becomes `Active`: owes in every cycle that starts from now on."""
    return await _take(engine, caller, member_id, "activate", body, if_match)


@router.post("/{member_id}/suspend", response_model=Member)
async def suspend(
    engine: CurrentEngine, caller: MemberManager, member_id: UUID, body: StepWithReason, if_match: IfMatch
) -> Response:
    """`Active` becomes `Suspended`: owes nothing in cycles that start from now on."""
    return await _take(engine, caller, member_id, "suspend", body, if_match)


@router.post("/{member_id}/resume", response_model=Member)
async def resume(
    engine: CurrentEngine, caller: MemberManager, member_id: UUID, body: Step, if_match: IfMatch
) -> Response:
    """`Suspended` or `Inactive` becomes `Active` again."""
    return await _take(engine, caller, member_id, "resume", body, if_match)


@router.post("/{member_id}/reject", response_model=Member)
async def reject(
    engine: CurrentEngine, caller: Decider, member_id: UUID, body: StepWithReason, if_match: IfMatch
) -> Response:
    """`Pending` or `UnderReview` becomes `Rejected`, for good: who applies again is registered again."""
    return await _take(engine, caller, member_id, "reject", body, if_match)


@router.post("/{member_id}/report-death", response_model=Member)
async def report_death(
    engine: CurrentEngine, caller: MemberManager, member_id: UUID, body: Death, if_match: IfMatch
) -> Response:
    """Whoever has a number becomes `Deceased`, for good, and owes nothing from this moment on; a cycle may follow."""
    return await _take(engine, caller, member_id, "report-death", body, if_match)


async def _take(
    engine: Engine, caller: Caller, member_id: UUID, step: str, body: Step | StepWithReason, if_match: int | None
) -> Response:
    version, given = version_of(body, if_match), body.model_dump(exclude={"version"})
    async with engine.database.transaction(caller.tenant_id) as tx:
        row = await take_step(tx, member_id, version, step, **given, by=caller.user_id)
    return versioned(Member.of(row))
