"""What every page is given: who is here, the API as theirs, and how to answer."""

from typing import Annotated, Any
from urllib.parse import quote, urlsplit

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.datastructures import FormData

from api.pages.client import ApiProblem, PageApi
from api.pages.render import Language, Renderer, language_of
from api.sessions import COOKIE, Session, Sessions
from core.errors import GuthiError

SIGN_IN = "/sign-in"
LONGEST_PATH = 2_000


class SignInNeeded(Exception):  # noqa: N818 (nothing failed)
    """Nobody is signed in, or nobody any more: `code` says which."""

    def __init__(self, code: str | None) -> None:
        super().__init__(code)
        self.code = code


class FormRefused(Exception):  # noqa: N818 (the form is at fault)
    """A form that did not come from a page of ours, or from one that is too old. Nothing was done."""


class Visit:
    """One request for a page."""

    def __init__(self, request: Request, session: Session | None) -> None:
        self.request, self.session = request, session
        self.api = PageApi(request, session)
        self.language: Language = language_of(request)
        self.me: dict[str, Any] | None = None
        self.notice_position: int | None = None

    @property
    def sessions(self) -> Sessions:
        sessions: Sessions = self.request.app.state.sessions
        return sessions

    @property
    def path(self) -> str:
        """Of this page with its query, to come back to."""
        query = self.request.scope["query_string"].decode("latin-1")
        return str(self.request.scope["path"]) + (f"?{query}" if query else "")

    def can(self, permission: str) -> bool:
        return self.me is not None and permission in self.me["permissions"]

    def page(self, template: str, status_code: int = 200, /, **what: Any) -> HTMLResponse:
        renderer: Renderer = self.request.app.state.renderer
        shared = {
            "visit": self,
            "me": self.me,
            "can": self.can,
            "path": self.path,
            "form_token": self.sessions.form_token(str(self.session.session_id)) if self.session else "",
        }
        return HTMLResponse(renderer.render(self.language, template, {**shared, **what}), status_code)

    def go(self, path: str, **query: str) -> Response:
        """To another page, by GET."""
        tail = "&".join(f"{name}={quote(value)}" for name, value in query.items())
        return RedirectResponse(path + (f"?{tail}" if tail else ""), 303)

    async def form(self) -> FormData:
        """The form that was sent, once it is certain that a page of this session sent it. Raises `FormRefused`."""
        assert self.session is not None, "pages with forms ask for a session"
        return await checked_form(self.request, self.sessions, str(self.session.session_id))


async def checked_form(request: Request, sessions: Sessions, bound_to: str) -> FormData:
    """Raises `FormRefused` for another site's form, and for a token that is not of this session."""
    if not _is_same_site(request):
        raise FormRefused
    form = await request.form(max_files=0, max_fields=100)
    if not sessions.is_form_token(text_of(form, "form_token"), bound_to):
        raise FormRefused
    return form


def text_of(form: FormData, name: str) -> str:
    """A field as it was typed, without the blanks around it."""
    value = form.get(name, "")
    return value.strip() if isinstance(value, str) else ""


async def _visit(request: Request) -> Visit:
    """Raises `SignInNeeded`, or what the API says of the user, as when it was deactivated."""
    cookie = request.cookies.get(COOKIE)
    if not cookie:
        raise SignInNeeded(None)
    sessions: Sessions = request.app.state.sessions
    try:
        visit = Visit(request, sessions.read(cookie))
    except GuthiError as error:
        raise SignInNeeded(error.code) from None
    try:
        visit.me = await visit.api.get("/api/me")
        visit.notice_position = (await visit.api.get("/api/notices"))["next"]
    except ApiProblem as problem:
        if problem.status == 401 or problem.code == "USER_INACTIVE":
            raise SignInNeeded(problem.code) from None
        raise
    return visit


Page = Annotated[Visit, Depends(_visit)]


def local_path(wanted: str) -> str:
    """Only ever a path of this site: anything else is the first page."""
    parts = urlsplit(wanted) if len(wanted) <= LONGEST_PATH and wanted.isprintable() else None
    is_local = parts and not parts.scheme and not parts.netloc and wanted.startswith("/") and "\\" not in wanted
    return wanted if is_local and not wanted.startswith("//") else "/"


def _is_same_site(request: Request) -> bool:
    """As the browser says. Over plain HTTP to a name it says nothing: then the token and the cookie must do."""
    if site := request.headers.get("Sec-Fetch-Site"):
        return site == "same-origin"
    origin = request.headers.get("Origin", "null")  # "null" is what no-referrer makes of our own
    return origin == "null" or urlsplit(origin).netloc == request.headers.get("Host")
