"""Start a cycle: find who died, see what it will come to, then confirm."""

from typing import Any
from uuid import uuid4

from fastapi import APIRouter, Response
from starlette.datastructures import FormData

from api.pages.client import ApiProblem
from api.pages.cycles import CYCLES
from api.pages.visit import Page, Visit, text_of

router = APIRouter(prefix="/start-cycle")

MOST_FOUND = 50
STRATEGIES = ("auto", "queued", "inline")


@router.get("")
async def choose(visit: Page) -> Response:
    query = visit.request.query_params
    return await _form(visit, query.get("tier", ""), query.get("search", ""))


@router.post("")
async def preview_or_start(visit: Page) -> Response:
    """The first time it shows what would be; with `confirmed` it does it. A form sent twice starts one cycle."""
    form = await visit.form()
    body = _body(form)
    if body.get("deceasedMemberId") in (None, ""):
        return await _form(visit, text_of(form, "tier"), "", problem=None, missing=True)
    try:
        if not text_of(form, "confirmed"):
            preview = await visit.api.post(f"{CYCLES}/preview", body=body)
            return visit.page("start_confirm.html", preview=preview, form=form, key=str(uuid4()))
        cycle = await visit.api.post(CYCLES, body=body, idempotency_key=text_of(form, "key") or str(uuid4()))
    except ApiProblem as problem:
        if problem.status not in (404, 409, 422):
            raise
        return await _form(visit, text_of(form, "tier"), "", problem=problem.problem, form=form, status=problem.status)
    return visit.go(f"/cycles/{cycle['cycleId']}", done="started")


async def _form(
    visit: Visit,
    tier_code: str,
    search: str,
    *,
    problem: dict[str, Any] | None = None,
    missing: bool = False,
    form: FormData | None = None,
    status: int = 200,
) -> Response:
    tiers = (await visit.api.get("/api/tiers", limit=1_000))["items"]
    tier = next((tier for tier in tiers if tier["code"] == tier_code), tiers[0] if len(tiers) == 1 else None)
    found: list[dict[str, Any]] = []
    if tier is not None:
        try:
            answer = await visit.api.get(
                "/api/members", status="Deceased", tier=tier["code"], search=search.strip() or None, limit=MOST_FOUND
            )
            found = answer["items"]
        except ApiProblem as refused:
            if refused.status != 422:
                raise
    return visit.page(
        "start.html",
        422 if missing else status,
        tiers=tiers,
        tier=tier,
        search=search,
        found=found,
        most=MOST_FOUND,
        problem=problem,
        missing=missing,
        form=form or {},
        strategies=STRATEGIES,
    )


def _body(form: FormData) -> dict[str, Any]:
    """What the API takes. What is no number goes as it was typed: the API says what is wrong with it."""
    body: dict[str, Any] = {
        "tierId": text_of(form, "tierId"),
        "deceasedMemberId": text_of(form, "deceasedMemberId"),
    }
    for name in ("contributionAmount", "benefitAmount", "strategy"):
        if value := text_of(form, name):
            body[name] = value
    for name in ("durationDays", "priority"):
        if value := text_of(form, name):
            body[name] = int(value) if value.isascii() and value.isdigit() and len(value) < 10 else value
    return body
