"""Errors as RFC 9457 `application/problem+json`, from whatever depth they come."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import asyncpg
import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from core.errors import GuthiError, InvalidInputError, MalformedRequestError, PathNotFoundError, RateLimitedError
from core.telemetry import emit
from db.errors import translate

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = "1"
_LONGEST_ECHO = 100
_NOT_CALLED_JSON = "send the body as JSON, with Content-Type: application/json"
_UNREADABLE = "the body cannot be read as JSON: send UTF-8, with less deep nesting and numbers of fewer digits"


class Problem(BaseModel):
    """What went wrong, for people (`detail`) and for programs (`code`, `context`)."""

    type: str = Field(examples=["urn:guthi:error:tier-not-found"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str
    code: str = Field(examples=["TIER_NOT_FOUND"])
    context: dict[str, Any]


_DOCUMENTED = {"content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "The request was refused and changed nothing", **_DOCUMENTED},
    "5XX": {"description": "The server could not answer; `Retry-After` says when to ask again", **_DOCUMENTED},
    422: {"description": "The request breaks a rule; `context` names the fields", **_DOCUMENTED},
}


def problem_response(
    status: int, code: str, detail: str, context: dict[str, Any] | None = None, headers: dict[str, str] | None = None
) -> Response:
    problem = {
        "type": "urn:guthi:error:" + code.lower().replace("_", "-"),
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "context": context or {},
    }
    # What a client sent may be echoed here, lone surrogates and all: escape what UTF-8 cannot carry.
    body = orjson.dumps(_printable(problem), default=str)
    return Response(body, status, headers, MEDIA_TYPE)


def install_problem_handlers(app: FastAPI, routes: Sequence[APIRoute]) -> None:
    """`routes` are those of the API, for the `Allow` of a method that a path does not have."""
    app.state.routes = routes
    app.add_exception_handler(GuthiError, _on_known_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    for kind in (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError):
        app.add_exception_handler(kind, _on_known_error)
    app.add_exception_handler(ClientDisconnect, _on_client_gone)
    app.add_exception_handler(Exception, _on_defect)


async def _on_known_error(request: Request, error: Exception) -> Response:
    known = translate(error)
    if known is None:
        return await _on_defect(request, error)
    headers = {}
    if known.status == 503:
        headers["Retry-After"] = RETRY_AFTER_SECONDS
        emit("request_unavailable", path=request.scope["path"], error=repr(error))
    if isinstance(known, RateLimitedError):
        headers["Retry-After"] = str(known.retry_after)
    if known.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return problem_response(known.status, known.code, str(known), known.context, headers)


async def _on_validation_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = error.errors()
    if problems[0]["type"] == "json_invalid":
        detail = f"the body is not JSON: {problems[0]['ctx']['error']} at character {problems[0]['loc'][1]}"
        return problem_response(MalformedRequestError.status, MalformedRequestError.code, detail)
    if isinstance(error.body, bytes) and error.body:  # FastAPI leaves what is not called JSON as it came
        return problem_response(415, InvalidInputError.code, _NOT_CALLED_JSON)
    fields = [{"field": _name(e["loc"]), "reason": e["msg"]} for e in problems]
    detail = "; ".join(f"{f['field']}: {f['reason']}" for f in fields[:5])
    return problem_response(422, InvalidInputError.code, detail, {"fields": fields[:100]})


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.scope["path"]  # never request.url: it is put together from a Host header that may be anything
    if error.status_code == 404:
        return problem_response(404, PathNotFoundError.code, f"there is nothing at {path[:_LONGEST_ECHO]}; see /docs")
    if error.status_code == 405:
        allow = _methods(request.app.state.routes, path) or (error.headers or {}).get("Allow", "")
        return problem_response(
            405, InvalidInputError.code, f"use one of {allow} here; see /docs", headers={"Allow": allow}
        )
    code = InvalidInputError.code if error.status_code < 500 else GuthiError.code
    detail = _UNREADABLE if error.status_code == 400 else str(error.detail)
    return problem_response(error.status_code, code, detail, headers=dict(error.headers or {}))


async def _on_client_gone(_: Request, __: Exception) -> Response:
    """In the middle of its body: nobody hears this answer, and it is no defect of ours."""
    return problem_response(MalformedRequestError.status, MalformedRequestError.code, "the body ended before its end")


async def _on_defect(request: Request, error: Exception) -> Response:
    emit("request_failed", path=request.scope["path"], error=repr(error), exc_info=error)
    return problem_response(500, GuthiError.code, "this is a defect of ours; it has been logged")


def _name(location: Sequence[int | str]) -> str:
    """`body.tierId` is `tierId` to whoever sent it; an unknown field's name may be of any length."""
    return ".".join(str(part) for part in location[1:])[:_LONGEST_ECHO] or str(location[0])


def _methods(routes: Sequence[APIRoute], path: str) -> str:
    """All methods of the documented routes at a path: each route knows only its own."""
    found = next((route.path for route in routes if route.path_regex.match(path)), None)
    there = [route for route in routes if route.path == found and route.include_in_schema]
    return ", ".join(sorted(method for route in there for method in route.methods or ()))


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_printable(key): _printable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(part) for part in value]
    return value
