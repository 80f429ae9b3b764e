"""The pages over HTTP: each shows what the API says, in both languages, and forms do what they say."""

import re
from collections.abc import Awaitable, Callable
from html import unescape
from typing import Any
from urllib.parse import quote

import asyncpg
import jwt
import pytest
from fastapi import FastAPI
from markupsafe import escape

from api.app import create_app
from api.sessions import COOKIE
from core.settings import Settings
from domain.roles import PERMISSIONS, Role
from tests.api.conftest import Start
from tests.api.expect import UNKNOWN, start_of, unchanged
from tests.api.pages.conftest import Browser
from tests.support import Society

Cycles = tuple[dict[str, Any], dict[str, Any]]
SECRET = "s" * 40
NASTY = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\u202eevil\u2066{{ 7 * 7 }}{% raw %}%(n)s %s"
HOSTILE = (NASTY, "x" * 10_000)


@pytest.fixture
async def cycles(start: Start) -> Cycles:
    """One that is made, and one that waits."""
    return (await start(strategy="inline")).json(), (await start(strategy="queued")).json()


def every_page(cycles: Cycles) -> list[str]:
    made, waiting = cycles
    return [
        *("/cycles", "/cycles?status=Active", "/cycles?status=nonsense", "/start-cycle", "/jobs", "/jobs?state=Queued"),
        *("/jobs?kind=nonsense&state=x", "/maintenance", "/maintenance/sweep", "/workers", "/users"),
        *(f"/cycles/{cycle['cycleId']}" for cycle in cycles),
        *(f"/jobs/{cycle['jobId']}" for cycle in cycles),
        f"/jobs/{made['jobId']}/rates",
        f"/cycles/{made['cycleId']}?search=old-9",
        f"/cycles/{made['cycleId']}?search=%00",
        f"/cycles/{waiting['cycleId']}?done=started",
    ]


async def test_each_is_there_in_both_languages(admin: Browser, cycles: Cycles) -> None:
    for language in ("en", "ne"):
        await admin.get(f"/language/{language}")
        for path in every_page(cycles):
            page = await admin.get(path)
            assert page.status_code == 200, (path, page.text)


async def test_the_card_says_what_it_says(admin: Browser, cycles: Cycles) -> None:
    made, waiting = cycles
    page = text((await admin.get(f"/cycles/{made['cycleId']}")).text)
    assert f"Cycle {made['cycleCode']}" in page and "100% (100/100)" in page and "OLD-" in page
    page = text((await admin.get(f"/cycles/{waiting['cycleId']}")).text)
    assert "You can safely close this page. We'll notify you when the cycle is ready." in page
    found = (await admin.get(f"/cycles/{made['cycleId']}?search=OLD-99")).text
    assert re.findall(r"OLD-\d+", found.split('id="contributions"')[1]) == ["OLD-99"]
    nothing = text((await admin.get(f"/cycles/{made['cycleId']}?search=ZZ")).text)
    assert "No member number begins with this" in nothing


async def test_a_cycle_is_previewed_then_started_once(
    admin: Browser, society: Society, owner: asyncpg.Connection
) -> None:
    token = await admin.form_token("/start-cycle")
    fields = {**start_of(society), "tier": "A", "form_token": token, "durationDays": "20", "strategy": "queued"}
    async with unchanged(owner):
        preview = await admin.post("/start-cycle", data=fields)
        assert "100 members will owe a contribution" in text(preview.text) and "10,000.00" in preview.text
        for change, said in (
            ({"contributionAmount": "lots"}, "contributionAmount"),
            ({"durationDays": "0"}, "durationDays"),
            ({"durationDays": "1e3"}, "durationDays"),
            ({"strategy": "magic"}, "strategy"),
            ({"deceasedMemberId": UNKNOWN}, "no member has the id"),
            ({"deceasedMemberId": "x"}, "deceasedMemberId"),
            ({"tierId": UNKNOWN}, "no tier has the id"),
        ):
            for confirmed in ({}, {"confirmed": "yes", "key": "k"}):
                answer = await admin.post("/start-cycle", data={**fields, **change, **confirmed})
                assert answer.status_code in (404, 422) and said in text(answer.text), change
        missing = await admin.post("/start-cycle", data={**fields, "deceasedMemberId": ""})
        assert missing.status_code == 422 and "Choose who died" in missing.text
    (key,) = re.findall(r'name="key" value="([^"]+)"', preview.text)
    answers = [await admin.post("/start-cycle", data={**fields, "confirmed": "yes", "key": key}) for _ in range(2)]
    assert len({answer.headers["location"] for answer in answers}) == 1  # sent twice, started once
    assert await owner.fetchval("SELECT count(*) FROM contribution_cycles") == 1
    assert "20 days" in str(await owner.fetchval("SELECT deadline - start_date || ' days' FROM contribution_cycles"))


async def test_jobs_are_steered_from_either_page(admin: Browser, cycles: Cycles, owner: asyncpg.Connection) -> None:
    _, waiting = cycles
    job, cycle = f"/jobs/{waiting['jobId']}", f"/cycles/{waiting['cycleId']}"
    answer = await admin.submit(f"{job}/pause", cycle, back=cycle)
    assert answer.headers["location"] == f"{cycle}?done=pause"
    assert "Paused: no further row" in (await admin.get(answer.headers["location"])).text
    again = await admin.submit(f"{job}/pause", cycle, back=cycle)
    assert again.status_code == 409 and "It is no longer as you saw it" in again.text
    assert (await admin.submit(f"{job}/resume", "/jobs", back="//evil.example")).headers["location"] == "/?done=resume"
    assert (await admin.submit(f"{job}/explode", "/jobs")).status_code == 404
    assert (await admin.submit(f"{job}/cancel", "/jobs")).headers["location"] == f"{job}?done=cancel"
    state = await owner.fetchval("SELECT state FROM batch_jobs WHERE job_id = $1", waiting["jobId"])
    assert state == "Cancelled"


async def test_maintenance_is_run_by_hand(admin: Browser) -> None:
    answer = await admin.submit("/maintenance/sweep/run", "/maintenance")
    assert answer.headers["location"] == "/maintenance/sweep?done=run"
    page = text((await admin.get("/maintenance/sweep")).text)
    assert "Administrator" in page and "Completed" in page
    assert (await admin.submit("/maintenance/nonsense/run", "/maintenance")).status_code == 404


async def test_users_and_keys(admin: Browser, app: FastAPI, owner: asyncpg.Connection) -> None:
    answer = await admin.submit("/users", "/users", email="ram@x.np", name="Ram", role="viewer")
    assert answer.headers["location"] == "/users?done=user-added"
    again = await admin.submit("/users", "/users", email="RAM@x.np", name="Ram", role="viewer")
    assert again.status_code == 409 and 'value="RAM@x.np"' in again.text
    ram = await owner.fetchval("SELECT user_id FROM users WHERE name = 'Ram'")
    shown = await admin.submit(f"/users/{ram}/keys", "/users", days="30")
    (key,) = re.findall(r"guthi_[0-9a-f]{32}_[0-9a-f]{64}", shown.text)
    assert key not in (await admin.get("/users")).text
    async with Browser(app) as his:
        assert (await his.sign_in(key)).status_code == 303
        answer = await admin.submit(f"/users/{ram}/change", "/users", version="1", role="operator")
        assert answer.headers["location"] == "/users?done=user-changed"
        assert "/start-cycle" in (await his.get("/cycles")).text
        stale = await admin.submit(f"/users/{ram}/change", "/users", version="1", role="admin")
        assert stale.status_code == 409 and "Somebody else changed it first" in stale.text
        key_id = await owner.fetchval("SELECT key_id FROM api_keys WHERE user_id = $1", ram)
        await admin.submit(f"/users/keys/{key_id}/revoke", "/users")
        assert (await his.get("/cycles")).status_code == 303
    mine = await owner.fetchval("SELECT user_id FROM users WHERE name = 'Administrator'")
    last = await admin.submit(f"/users/{mine}/change", "/users", version="1", isActive="false")
    assert last.status_code == 409 and "Give another admin a key" in last.text


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR, Role.ASSESSOR])
async def test_pages_obey_roles(
    signed_in_as: Callable[[str], Awaitable[Browser]],
    cycles: Cycles,
    owner: asyncpg.Connection,
    role: Role,
) -> None:
    browser, may = await signed_in_as(role), {permission.name for permission in PERMISSIONS[role]}
    _, waiting = cycles
    token = await browser.form_token("/cycles")  # of the sign-out
    pages = {path: (await browser.get(path)).text for path in ("/cycles", "/jobs", "/maintenance", "/workers")}
    assert ("/start-cycle" in pages["/cycles"]) == ("START_CYCLES" in may)
    assert (f"/jobs/{waiting['jobId']}/pause" in pages["/jobs"]) == ("STEER_JOBS" in may)
    assert ("/maintenance/sweep/run" in pages["/maintenance"]) == ("RUN_MAINTENANCE" in may)
    assert 'href="/users"' not in pages["/cycles"]
    assert (await browser.get("/users")).status_code == 403
    pause = f"/jobs/{waiting['jobId']}/pause"
    refused = {"/users": "MANAGE_USERS", "/start-cycle": "START_CYCLES", pause: "STEER_JOBS"}
    for path, permission in refused.items():
        if permission not in may:
            async with unchanged(owner):
                answer = await browser.post(path, data={"form_token": token, "deceasedMemberId": UNKNOWN})
            assert answer.status_code == 403 and "You may not do this" in answer.text, path


async def test_anothers_ids_are_not_there(
    app: FastAPI,
    other: Society,
    cycles: Cycles,
    society: Society,
    owner: asyncpg.Connection,
) -> None:
    async with Browser(app) as stranger:
        await stranger.sign_in(other.api_key)
        token = {"form_token": await stranger.form_token("/users")}
        async with unchanged(owner):
            for cycle in cycles:
                for path in (f"/cycles/{cycle['cycleId']}", f"/jobs/{cycle['jobId']}", f"/jobs/{cycle['jobId']}/rates"):
                    assert (await stranger.get(path)).status_code == 404, path
                for verb in ("pause", "resume", "cancel", "retry"):
                    answer = await stranger.post(f"/jobs/{cycle['jobId']}/{verb}", data=token)
                    assert answer.status_code == 404
            for path in (f"/users/{society.user_id}/change", f"/users/{society.user_id}/keys"):
                answer = await stranger.post(path, data={**token, "version": "1", "role": "viewer"})
                assert answer.status_code == 404, path
            answer = await stranger.post("/start-cycle", data={**token, **start_of(society), "confirmed": "yes"})
            assert answer.status_code == 404
        assert "CC-" not in (await stranger.get("/cycles")).text


async def test_hostile_names_are_only_ever_text(admin: Browser, cycles: Cycles, owner: asyncpg.Connection) -> None:
    made, _ = cycles
    for name in HOSTILE:
        for table, column in (("tiers", "name"), ("members", "full_name"), ("users", "name"), ("tenants", "name")):
            await owner.execute(f"UPDATE {table} SET {column} = $1", name)
        await owner.execute("UPDATE batch_jobs SET error = $1", name)
        await owner.execute("UPDATE batch_job_shards SET error = $1", name)
        await owner.execute("UPDATE batch_job_log SET fields = jsonb_build_object($1::text, $1::text)", name)
        await owner.execute("UPDATE maintenance_runs SET error = $1, result = NULL", name)
        for path in every_page(cycles):
            page = await admin.get(path)
            assert page.status_code == 200, (name[:30], path)
            assert "<script>alert" not in page.text and "<img src=x" not in page.text and ">49{" not in page.text
        page = (await admin.get(f"/cycles/{made['cycleId']}")).text
        assert f"<bdi>{name}</bdi>" in page.replace(escaped(name), name)


async def test_what_is_typed_is_shown_as_text(admin: Browser, cycles: Cycles) -> None:
    made, _ = cycles
    for typed in (NASTY, "\0", "ए" * 300):
        pages = [
            await admin.get(f"/cycles/{made['cycleId']}", params={"search": typed}),
            await admin.get("/start-cycle", params={"tier": typed, "search": typed}),
            await admin.get("/jobs", params={"kind": typed, "state": typed}),
            await admin.get(f"/maintenance/{quote(typed, safe='')}"),
            await admin.get("/cycles", params={"status": typed, "after": typed, "done": typed}),
            await admin.submit("/users", "/users", email=typed, name=typed, role=typed),
            await admin.get("/sign-in", params={"why": typed, "back": typed}),
        ]
        for page in pages:
            assert page.status_code in (200, 404, 422) and page.headers["content-type"].startswith("text/html")
            assert "<script>alert" not in page.text and "<img src=x" not in page.text and ">49{" not in page.text


async def test_without_a_database_pages_say_so_and_come_back(settings: Settings, admin: Browser) -> None:
    changed = {"database_url": "postgresql://x@127.0.0.1:1/x", "session_secret": SECRET}
    away = create_app(settings.model_copy(update=changed))
    async with away.router.lifespan_context(away), Browser(away) as browser:
        assert (await browser.get("/sign-in")).status_code == 200
        answer = await browser.sign_in("guthi_" + "0" * 32 + "_" + "0" * 64)
        assert answer.status_code == 503 and "The database cannot be reached" in answer.text
        browser.cookies.set(COOKIE, _cookie())
        page = await browser.get("/cycles")
        assert page.status_code == 503 and page.headers["retry-after"] == "1" and "data-retry" in page.text
        assert "Nothing is lost" in page.text and "this page tries again by itself" in page.text
        assert browser.cookies[COOKIE]  # nobody is signed out by it
        part = await browser.get("/cycles", headers={"HX-Request": "true", "Accept": "*/*"})
        assert part.status_code == 503


async def test_without_redis_pages_work(settings: Settings, society: Society) -> None:
    app = create_app(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"}))
    async with app.router.lifespan_context(app), Browser(app) as browser:
        assert (await browser.sign_in(society.api_key)).status_code == 303
        for path in ("/cycles", "/jobs", "/maintenance", "/workers"):
            assert (await browser.get(path)).status_code == 200, path
        assert "Redis is away" in (await browser.get("/workers")).text


async def test_a_defect_is_a_page_that_tells_nothing(admin: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the secret of the house")

    monkeypatch.setattr("api.pages.jobs.users_of", broken)
    answer = await admin.get("/jobs")
    assert answer.status_code == 500 and "This is a defect of ours" in answer.text
    assert "secret" not in answer.text and answer.headers["content-security-policy"]


def _cookie() -> str:
    return jwt.encode({"ten": UNKNOWN, "sid": UNKNOWN, "exp": 2**31}, SECRET, "HS256")


def text(page: str) -> str:
    """What a reader sees."""
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", page)))


def escaped(name: str) -> str:
    return str(escape(name))
