"""Members: find them, change them, bring many in at once."""

import hashlib
import tempfile
from typing import IO, Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field
from starlette.exceptions import HTTPException

from api.answers import BatchJob, Member, Page, page_of
from api.context import CurrentEngine, MemberManager, Viewer
from api.fields import Code, Email, Gender, In, MemberStatus, PageQuery, Phone, Search, Text
from api.idempotency import PARAMETER, IdempotencyKey, once
from api.jobs import router as jobs_router
from api.shown_jobs import show_jobs
from api.versions import UNSET, Change, IfMatch, version_of, versioned
from core.errors import NotFoundError
from db.database import Transaction
from db.queries import sql
from domain.idempotency_keys import StoredAnswer
from domain.members import update_member
from jobs.import_members import start_import

router = APIRouter(prefix="/api/members", tags=["members"])

_IN_MEMORY_BYTES = 1_048_576


class MembersQuery(PageQuery):
    search: Search | None = None
    """Part of a name or a member number."""
    status: MemberStatus | None = None
    tier: Code | None = None
    """A tier's code."""


class ChangeMember(Change):
    """`agentId`, `phone` and `email` may be null."""

    full_name: Text = Field(default=UNSET)
    gender: Gender = Field(default=UNSET)
    status: MemberStatus = Field(default=UNSET)
    tier_id: UUID = Field(default=UNSET)
    agent_id: UUID | None = None
    phone: Phone | None = None
    email: Email | None = None


class ImportQuery(In):
    dry_run: bool = False


@router.get("", response_model=Page[Member])
async def list_members(engine: CurrentEngine, caller: Viewer, query: Annotated[MembersQuery, Query()]) -> Response:
    """In the order they were brought in."""
    async with engine.database.transaction(caller.tenant_id) as tx:
        rows = [
            row
            async for row in sql.list_members(
                tx.connection,
                tenant_id=tx.tenant_id,
                search=query.search,
                status=query.status,
                tier=query.tier,
                after=query.above,
                limit=query.limit + 1,
            )
        ]
    return page_of(Member, rows, query.limit, "member_id")


@router.post(
    "/import",
    status_code=202,
    response_model=BatchJob,
    openapi_extra={
        **PARAMETER,
        "requestBody": {"required": True, "content": {"text/csv": {"schema": {"type": "string"}}}},
    },
)
async def import_csv(
    request: Request,
    engine: CurrentEngine,
    caller: MemberManager,
    key: IdempotencyKey,
    query: Annotated[ImportQuery, Query()],
) -> Response:
    """A CSV of members becomes a batch job; `GET /api/jobs/{jobId}/log` tells the rows that were refused and why.

    Its first line names the columns: full_name, gender, tier, agent, phone, email, status, joined_on,
    member_number; full_name and tier are required. A file that cannot be read at all is 422 and stages nothing.
    With `dryRun` every row is checked and reported, and no member is made.
    """
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "text/csv":
        raise HTTPException(415, "send the file as it is, with Content-Type: text/csv")
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as file:
        content = await _receive(request, file)

        async def act(tx: Transaction) -> StoredAnswer:
            job = await start_import(engine, tx, file, caller.user_id, dry_run=query.dry_run)
            (shown,) = await show_jobs(engine, tx, [job])
            return StoredAnswer(202, f"{jobs_router.prefix}/{job.job_id}", shown.model_dump_json(by_alias=True))

        return await once(engine.database, caller, key, request, content, act)


@router.api_route("/import", methods=["GET", "PATCH"], include_in_schema=False)
async def import_is_posted() -> None:
    """Or "import" would be taken for a member's id."""
    raise HTTPException(405)


@router.get("/{member_id}", response_model=Member)
async def show(engine: CurrentEngine, caller: Viewer, member_id: UUID) -> Response:
    async with engine.database.transaction(caller.tenant_id) as tx:
        row = await sql.get_member(tx.connection, tenant_id=tx.tenant_id, member_id=member_id)
    if row is None:
        raise NotFoundError("member", member_id)
    return _shown(row)


@router.patch("/{member_id}", response_model=Member)
async def change(
    engine: CurrentEngine, caller: MemberManager, member_id: UUID, body: ChangeMember, if_match: IfMatch
) -> Response:
    """With the `version` that was read; 409 `CONCURRENT_MODIFICATION` when it is not the present one."""
    version, changes = version_of(body, if_match), body.changes()
    async with engine.database.transaction(caller.tenant_id) as tx:
        row = await update_member(tx, member_id, version, changes, caller.user_id)
    return _shown(row)


async def _receive(request: Request, file: IO[bytes]) -> bytes:
    """Spool the body, so that a slow client holds no transaction open; returns its SHA-256."""
    digest = hashlib.sha256()
    async for chunk in request.stream():
        digest.update(chunk)
        file.write(chunk)
    file.seek(0)
    return digest.digest()


def _shown(row: Any) -> Response:
    return versioned(Member.of(row))
