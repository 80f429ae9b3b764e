"""Jobs of all kinds: see them, understand what went wrong, steer them."""

import asyncio
from typing import Any

from fastapi import APIRouter, Response

from api.pages.charts import rate_chart
from api.pages.cycles import LOG_LINES, ON_A_PAGE
from api.pages.visit import Page, Visit, local_path, text_of
from api.pages.words import JOB_STATES, KINDS, VERBS
from core.errors import PathNotFoundError

router = APIRouter(prefix="/jobs")


@router.get("")
async def show_jobs(visit: Page) -> Response:
    query = visit.request.query_params
    chosen = {
        "kind": query.get("kind") if query.get("kind") in KINDS else None,
        "state": query.get("state") if query.get("state") in JOB_STATES else None,
        "createdBy": query.get("createdBy") or None,
    }
    page, users = await asyncio.gather(
        visit.api.get("/api/jobs", **chosen, limit=ON_A_PAGE, after=query.get("after")), users_of(visit)
    )
    return visit.page("jobs.html", jobs=page, chosen=chosen, users=users, done=query.get("done"))


@router.get("/{job_id}")
async def show_job(visit: Page, job_id: str) -> Response:
    job, rates, log = await asyncio.gather(
        visit.api.get("/api/jobs/{}", job_id),
        visit.api.get("/api/jobs/{}/rates", job_id),
        visit.api.get("/api/jobs/{}/log", job_id, newest="true", limit=LOG_LINES),
    )
    return visit.page(
        "job.html", job=job, chart=rate_chart(rates["items"]), log=log, done=visit.request.query_params.get("done")
    )


@router.get("/{job_id}/rates")
async def show_rates(visit: Page, job_id: str) -> Response:
    """The chart alone, for a page that is open."""
    rates = await visit.api.get("/api/jobs/{}/rates", job_id)
    return visit.page("_rates.html", chart=rate_chart(rates["items"]), job_id=job_id)


@router.post("/{job_id}/{verb}")
async def steer(visit: Page, job_id: str, verb: str) -> Response:
    """Back to where the button was, which then says what was done."""
    if verb not in VERBS:
        raise PathNotFoundError("there is nothing at this path")
    form = await visit.form()
    await visit.api.post(f"/api/jobs/{{}}/{verb}", job_id)
    back = local_path(text_of(form, "back") or f"/jobs/{job_id}").partition("?")[0]
    return visit.go(back, done=verb)


async def users_of(visit: Visit) -> list[dict[str, Any]]:
    """Whom a page may name: everybody, to an admin; to others themselves."""
    if visit.can("MANAGE_USERS"):
        users: list[dict[str, Any]] = (await visit.api.get("/api/users", limit=1_000))["items"]
        return users
    return [visit.me] if visit.me else []
