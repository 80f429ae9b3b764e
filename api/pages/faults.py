"""Problems as pages: what happened, what is safe, what to do next. Programs are given the same as JSON, as ever."""

from collections.abc import Awaitable, Callable
from urllib.parse import quote

import orjson
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from structlog.contextvars import get_contextvars

from api.pages.client import ApiProblem
from api.pages.headers import STATIC, is_page
from api.pages.render import Renderer, language_of
from api.pages.visit import SIGN_IN, FormRefused, SignInNeeded
from api.problems import MEDIA_TYPE, problem_response
from api.sessions import COOKIE

Handler = Callable[[Request, Exception], Awaitable[Response]]
FORM_REFUSED = "FORM_REFUSED"


def install(app: FastAPI) -> None:
    """Wraps the problem handlers that are there: whatever they answer is shown as a page to who asked for one."""
    handlers: dict[object, Handler] = dict(app.exception_handlers)
    handlers |= {ApiProblem: _on_api_problem, FormRefused: _on_form_refused}
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, _for_readers(handler))  # type: ignore[arg-type]  # as above
    app.add_exception_handler(SignInNeeded, _on_sign_in_needed)


def _for_readers(handler: Handler) -> Handler:
    async def handle(request: Request, error: Exception) -> Response:
        answer = await handler(request, error)
        wants_page = "text/html" in request.headers.get("Accept", "") or "HX-Request" in request.headers
        path = request.scope["path"]
        if wants_page and is_page(path) and not path.startswith(STATIC) and answer.media_type == MEDIA_TYPE:
            return _page(request, answer)
        return answer

    return handle


def _page(request: Request, answer: Response) -> Response:
    problem = orjson.loads(bytes(answer.body))
    renderer: Renderer = request.app.state.renderer
    kept = {name: value for name, value in answer.headers.items() if name in ("retry-after", "allow")}
    is_get, request_id = request.method in ("GET", "HEAD"), get_contextvars().get("request_id", "")
    what = {"problem": problem, "is_get": is_get, "request_id": request_id, "me": None}
    body = renderer.render(language_of(request), "error.html", what)
    return Response(body, answer.status_code, kept, "text/html")


async def _on_api_problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiProblem)
    kept = {name: value for name, value in error.headers.items() if name == "retry-after"}
    return problem_response(error.status, error.code, error.problem["detail"], error.problem["context"], kept)


async def _on_form_refused(_: Request, __: Exception) -> Response:
    detail = "this form was not sent from a page of your session, or the page was too old: nothing was done"
    return problem_response(403, FORM_REFUSED, detail)


async def _on_sign_in_needed(request: Request, error: Exception) -> Response:
    """To the sign-in, and back from there to where one was; a form that was sent is not sent again."""
    assert isinstance(error, SignInNeeded)
    if error.code is None and request.headers.get("Sec-Fetch-Site") == "cross-site" and request.method == "GET":
        # A link on another site was followed: the browser keeps the cookie to itself until this site asks.
        renderer: Renderer = request.app.state.renderer
        return HTMLResponse(renderer.render(language_of(request), "again.html", {"me": None}))
    path, query = request.scope["path"], request.scope["query_string"].decode("latin-1")
    back = (path + (f"?{query}" if query else "")) if request.method in ("GET", "HEAD") else "/"
    if "HX-Request" in request.headers:
        back = request.headers.get("HX-Current-Path", back)
    where = f"{SIGN_IN}?back={quote(back, safe='')}" + (f"&why={error.code}" if error.code else "")
    if "HX-Request" in request.headers:  # a redirect would be followed unseen, and its page put into this one
        return Response(status_code=401, headers={"HX-Redirect": where})
    answer = RedirectResponse(where, 303)
    if error.code:
        answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return answer
