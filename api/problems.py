"""Errors as RFC 9457 `application/problem+json`, from whatever depth they come."""

from http import HTTPStatus
from typing import Any

import asyncpg
import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from core.errors import GuthiError, InvalidInputError
from core.telemetry import emit
from db.errors import translate

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = "1"


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


def install_problem_handlers(app: FastAPI) -> None:
    app.add_exception_handler(GuthiError, _on_known_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    for kind in (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
        app.add_exception_handler(kind, _on_known_error)
    app.add_exception_handler(Exception, _on_defect)


async def _on_known_error(request: Request, error: Exception) -> Response:
    known = translate(error)
    if known is None:
        return await _on_defect(request, error)
    headers = {}
    if known.status == 503:
        headers["Retry-After"] = RETRY_AFTER_SECONDS
        emit("request_unavailable", path=request.url.path, error=repr(error))
    if known.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return problem_response(known.status, known.code, str(known), known.context, headers)


async def _on_validation_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    fields = [
        {"field": ".".join(str(part) for part in e["loc"][1:]) or str(e["loc"][0]), "reason": e["msg"]}
        for e in error.errors()
    ]
    detail = "; ".join(f"{f['field']}: {f['reason']}" for f in fields[:5])
    return problem_response(422, InvalidInputError.code, detail, {"fields": fields[:100]})


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return problem_response(404, "PATH_NOT_FOUND", f"there is nothing at {request.url.path}; see /docs")
    if error.status_code == 405:
        detail = f"{request.method} is not possible here; see /docs"
        return problem_response(405, InvalidInputError.code, detail, headers=dict(error.headers or {}))
    code = InvalidInputError.code if error.status_code < 500 else GuthiError.code
    return problem_response(error.status_code, code, str(error.detail), headers=dict(error.headers or {}))


async def _on_defect(request: Request, error: Exception) -> Response:
    emit("request_failed", path=request.url.path, error=repr(error), exc_info=error)
    return problem_response(500, GuthiError.code, "this is a defect of ours; it has been logged")


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_printable(key): _printable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(part) for part in value]
    return value
