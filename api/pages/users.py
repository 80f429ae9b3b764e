"""Users and their keys, for admins. A new key is shown in the answer to the form that asked for it, and never again."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter, Response

from api.pages.client import ApiProblem
from api.pages.visit import Page, Visit, text_of
from api.pages.words import ROLES

router = APIRouter(prefix="/users")

LIVES = {"": None, "30": 30, "90": 90, "365": 365}
"""Days that a new key opens for; empty: for ever."""


@router.get("")
async def show_users(visit: Page) -> Response:
    return await _list(visit)


@router.post("")
async def add(visit: Page) -> Response:
    form = await visit.form()
    body = {name: text_of(form, name) for name in ("email", "name", "role")}
    try:
        await visit.api.post("/api/users", body=body)
    except ApiProblem as problem:
        if problem.status not in (409, 422):
            raise
        return await _list(visit, problem=problem.problem, typed=body, status=problem.status)
    return visit.go("/users", done="user-added")


@router.post("/{user_id}/change")
async def change(visit: Page, user_id: str) -> Response:
    """Of what was seen: somebody else's change in between is not overwritten."""
    form = await visit.form()
    version = text_of(form, "version")
    body: dict[str, Any] = {"version": int(version) if version.isascii() and version.isdigit() else version}
    if role := text_of(form, "role"):
        body["role"] = role
    if active := text_of(form, "isActive"):
        body["isActive"] = active == "true"
    await visit.api.patch("/api/users/{}", user_id, body=body)
    return visit.go("/users", done="user-changed")


@router.post("/{user_id}/keys")
async def issue_key(visit: Page, user_id: str) -> Response:
    form = await visit.form()
    days = LIVES.get(text_of(form, "days"))
    expires_at = (datetime.now(UTC) + timedelta(days=days)).isoformat() if days else None
    key = await visit.api.post("/api/users/{}/keys", user_id, body={"expiresAt": expires_at})
    user = await visit.api.get("/api/users/{}", user_id)
    return visit.page("key.html", 201, key=key, user=user)


@router.post("/keys/{key_id}/revoke")
async def revoke(visit: Page, key_id: str) -> Response:
    await visit.form()
    await visit.api.delete("/api/keys/{}", key_id)
    return visit.go("/users", done="key-revoked")


async def _list(
    visit: Visit, *, problem: dict[str, Any] | None = None, typed: dict[str, str] | None = None, status: int = 200
) -> Response:
    after = visit.request.query_params.get("after")
    users, keys = await asyncio.gather(
        visit.api.get("/api/users", limit=100, after=after), visit.api.get("/api/keys", limit=1_000)
    )
    now = datetime.now(UTC)
    live = [
        key
        for key in keys["items"]
        if not key["revokedAt"] and not (key["expiresAt"] and datetime.fromisoformat(key["expiresAt"]) <= now)
    ]
    return visit.page(
        "users.html",
        status,
        users=users,
        keys={user["userId"]: [k for k in live if k["userId"] == user["userId"]] for user in users["items"]},
        roles=ROLES,
        lives=LIVES,
        problem=problem,
        typed=typed or {},
        done=visit.request.query_params.get("done"),
    )
