"""Sign in with an API key, sign out. The key goes into nothing but the check."""

import secrets
from datetime import timedelta

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from api.pages.visit import SIGN_IN, FormRefused, Visit, checked_form, local_path, text_of
from api.sessions import COOKIE, FORM_COOKIE, Sessions, SignInLimits
from core.errors import GuthiError, UnauthorizedError, UserInactiveError
from core.telemetry import emit

router = APIRouter()
_FORM_LASTS = timedelta(hours=12)


@router.get(SIGN_IN)
async def show(request: Request) -> Response:
    return _form(request, why=request.query_params.get("why", ""), back=request.query_params.get("back", "/"))


@router.post(SIGN_IN)
async def sign_in(request: Request) -> Response:
    """Refused without a word about which part of the key was wrong; too many wrong ones from an address: 429."""
    sessions: Sessions = request.app.state.sessions
    limits: SignInLimits = request.app.state.sign_in_limits
    address = request.client.host if request.client else ""
    try:
        form = await checked_form(request, sessions, _bound_to(_browser(request)))
    except FormRefused:
        return _form(request, why="FORM_REFUSED", back="/", status=403)
    back = local_path(text_of(form, "back"))
    try:
        await limits.check(address)
        cookie = await sessions.sign_in(text_of(form, "key"))
    except (UnauthorizedError, UserInactiveError) as error:
        await limits.count(address)
        emit("sign_in_refused", code=error.code, address=address)
        return _form(
            request,
            why="KEY_EXPIRED" if error.code == "SESSION_EXPIRED" else error.code,
            back=back,
            status=error.status,
        )
    except GuthiError as error:
        return _form(request, why=error.code, back=back, status=error.status)
    answer = RedirectResponse(back, 303)
    sessions.set_cookie(answer, request.scope, COOKIE, cookie)
    answer.delete_cookie(FORM_COOKIE, path="/", httponly=True, samesite="strict")
    return answer


@router.post("/sign-out")
async def sign_out(request: Request) -> Response:
    """The session ends here and in every other tab; without one there is nothing to end."""
    sessions: Sessions = request.app.state.sessions
    answer = RedirectResponse(f"{SIGN_IN}?why=signed-out", 303)
    try:
        session = sessions.read(request.cookies.get(COOKIE, ""))
    except GuthiError:
        return answer
    await Visit(request, session).form()
    await sessions.sign_out(session)
    answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return answer


def _form(request: Request, *, why: str, back: str, status: int = 200) -> Response:
    """The form is bound to this browser by a cookie: nobody can sign another one in with a key of theirs."""
    sessions: Sessions = request.app.state.sessions
    browser = _browser(request) or secrets.token_urlsafe(24)
    shown = Visit(request, None).page(
        "sign_in.html", status, why=why, back=local_path(back), form_token=sessions.form_token(_bound_to(browser))
    )
    sessions.set_cookie(shown, request.scope, FORM_COOKIE, browser, _FORM_LASTS)
    return shown


def _bound_to(browser: str) -> str:
    return f"browser {browser}"  # never what the forms of a session are bound to


def _browser(request: Request) -> str:
    return request.cookies.get(FORM_COOKIE, "")[:100]
