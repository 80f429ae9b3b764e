"""Cycles: running first, then recent; one cycle with its card, shards, timeline, log and contributions."""

import asyncio
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Response

from api.pages.charts import rate_chart
from api.pages.client import ApiProblem
from api.pages.visit import Page, Visit
from api.pages.words import CYCLE_STATES, ENDED

router = APIRouter(prefix="/cycles")

CYCLES = "/api/contribution-cycles"
ON_A_PAGE = 25
LOG_LINES = 50


@router.get("")
async def show_cycles(visit: Page) -> Response:
    query = visit.request.query_params
    status = query.get("status") if query.get("status") in CYCLE_STATES else None
    running: dict[str, Any] = {"items": []}
    if status in (None, "Initializing") and not query.get("after"):
        running = await visit.api.get(CYCLES, status="Initializing", limit=100)
    recent: dict[str, Any] = {"items": [], "next": None}
    if status != "Initializing":
        recent = await visit.api.get(CYCLES, status=status, limit=ON_A_PAGE, after=query.get("after"))
        recent["items"] = [cycle for cycle in recent["items"] if status or cycle["cycleStatus"] != "Initializing"]
    jobs = await _jobs_of(visit, running["items"])
    return visit.page(
        "cycles.html", running=running["items"], recent=recent, jobs=jobs, status=status, done=query.get("done")
    )


@router.get("/{cycle_id}")
async def show_cycle(visit: Page, cycle_id: str) -> Response:
    query = visit.request.query_params
    cycle = await visit.api.get(f"{CYCLES}/{{}}", cycle_id)
    job_id, cycle_id = cycle["jobId"], cycle["cycleId"]
    deceased, job, rates, log, events = await asyncio.gather(
        visit.api.get("/api/members/{}", cycle["deceasedMemberId"]),
        visit.api.get("/api/jobs/{}", job_id),
        visit.api.get("/api/jobs/{}/rates", job_id),
        visit.api.get("/api/jobs/{}/log", job_id, newest="true", limit=LOG_LINES),
        visit.api.get(f"{CYCLES}/{{}}/events", cycle_id),
    )
    if cycle["cycleStatus"] == "Initializing" and job["state"] in ENDED:  # it ended between the two questions
        cycle = await visit.api.get(f"{CYCLES}/{{}}", cycle_id)
    contributions = await _contributions(visit, cycle_id)
    return visit.page(
        "cycle.html",
        cycle=cycle,
        deceased=deceased,
        job=job,
        chart=rate_chart(rates["items"]),
        log=log,
        events=events["items"],
        contributions=contributions,
        search=query.get("search", ""),
        after=query.get("after"),
        done=query.get("done"),
    )


async def _contributions(visit: Visit, cycle_id: str) -> dict[str, Any]:
    """What cannot be searched for finds nothing: the page itself stays."""
    query = visit.request.query_params
    try:
        found: dict[str, Any] = await visit.api.get(
            f"{CYCLES}/{{}}/contributions",
            cycle_id,
            limit=ON_A_PAGE,
            search=query.get("search", "").strip() or None,
            after=query.get("after"),
        )
    except ApiProblem as problem:
        if problem.status != 422:
            raise
        return {"items": [], "next": None}
    return found


async def _jobs_of(visit: Visit, cycles: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The running ones' jobs, for the bars' segments, by their id."""
    if not cycles:
        return {}
    page = await visit.api.get("/api/jobs", kind="create_contributions", unfinished="true", limit=100)
    return {job["jobId"]: job for job in page["items"]}
