"""Maintenance: what cron runs, when, with what result; and run it now."""

from fastapi import APIRouter, Response

from api.pages.cycles import ON_A_PAGE
from api.pages.jobs import users_of
from api.pages.visit import Page

router = APIRouter(prefix="/maintenance")


@router.get("")
async def show_all(visit: Page) -> Response:
    items = (await visit.api.get("/api/maintenance"))["items"]
    return visit.page("maintenance.html", items=items, done=visit.request.query_params.get("done"))


@router.get("/{name}")
async def show_runs(visit: Page, name: str) -> Response:
    query = visit.request.query_params
    runs = await visit.api.get("/api/maintenance/{}/runs", name, limit=ON_A_PAGE, after=query.get("after"))
    items = (await visit.api.get("/api/maintenance"))["items"]
    (item,) = (item for item in items if item["name"] == name)
    users = {user["userId"]: user["name"] for user in await users_of(visit)}
    return visit.page("maintenance_runs.html", item=item, runs=runs, users=users, done=query.get("done"))


@router.post("/{name}/run")
async def run(visit: Page, name: str) -> Response:
    await visit.form()
    await visit.api.post("/api/maintenance/{}/run", name)
    return visit.go(f"/maintenance/{name}", done="run")
