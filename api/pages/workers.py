"""Workers: who is alive, what each is doing, since when."""

from fastapi import APIRouter, Response

from api.pages.visit import Page

router = APIRouter(prefix="/workers")


@router.get("")
async def show(visit: Page) -> Response:
    return visit.page("workers.html", workers=await visit.api.get("/api/workers"))
