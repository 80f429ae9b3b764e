"""The first page, and the language."""

from datetime import timedelta

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from api.pages.render import LANGUAGE_COOKIE, LANGUAGES
from api.pages.visit import local_path

router = APIRouter()
_A_YEAR = int(timedelta(days=365).total_seconds())


@router.get("/")
async def home() -> Response:
    return RedirectResponse("/cycles", 303)


@router.get("/language/{code}")
async def language(request: Request, code: str) -> Response:
    """A choice that changes nothing but how pages look, so a link may make it."""
    answer = RedirectResponse(local_path(request.query_params.get("back", "/")), 303)
    if code in LANGUAGES:
        is_secure = request.scope["scheme"] == "https"
        answer.set_cookie(LANGUAGE_COOKIE, code, _A_YEAR, httponly=True, samesite="lax", secure=is_secure)
    return answer
