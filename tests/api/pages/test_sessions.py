"""Sessions: a signed cookie that names a row, and what becomes of cookies that are old, forged, kept or copied."""

import json
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import asyncpg
import httpx
import jwt
import pytest
from fastapi import FastAPI

from api.app import create_app
from api.sessions import COOKIE, WRONG_KEYS
from core.logs import _Redact
from core.settings import Settings
from jobs.engine.engine import Engine
from jobs.maintenance import run_maintenance
from tests.api.expect import refused, start_of, unchanged
from tests.api.pages.conftest import Browser
from tests.support import Society

SECRET = "x" * 40


def leads_to_sign_in(answer: httpx.Response, why: str | None, back: str) -> None:
    assert answer.status_code == 303, answer.text
    where = urlsplit(answer.headers["location"])
    assert where.path == "/sign-in"
    query = parse_qs(where.query)
    assert (query.get("why"), query["back"]) == ([why] if why else None, [back])


async def test_a_key_becomes_a_cookie_that_does_not_hold_it(browser: Browser, society: Society) -> None:
    leads_to_sign_in(await browser.get("/jobs?state=Failed"), None, "/jobs?state=Failed")
    answer = await browser.sign_in(society.api_key, back="/jobs?state=Failed")
    assert (answer.status_code, answer.headers["location"]) == (303, "/jobs?state=Failed")
    (cookie,) = (c for c in answer.headers.get_list("set-cookie") if c.startswith(COOKIE))
    said = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/", "max-age=43200"} <= said
    _, key_id, secret = society.api_key.split("_")
    claims = jwt.decode(browser.cookies[COOKIE], options={"verify_signature": False})
    assert set(claims) == {"ten", "sid", "exp"}
    for told in (cookie, json.dumps(claims), (await browser.get("/jobs")).text):
        assert secret not in told and key_id not in told


async def test_it_is_for_https_alone_where_https_is_spoken(app: FastAPI, society: Society) -> None:
    async with Browser(app, base_url="https://site") as browser:
        answer = await browser.sign_in(society.api_key)
        assert all("; secure" in cookie.lower() for cookie in answer.headers.get_list("set-cookie") if COOKIE in cookie)
        assert (await browser.get("/cycles")).status_code == 200


async def test_a_wrong_key_opens_nothing_and_is_not_shown_again(browser: Browser) -> None:
    for key in ("", "x", "guthi_" + "0" * 32 + "_" + "0" * 64, "x" * 100_000, "é\x00\n", "<script>"):
        answer = await browser.sign_in(key)
        assert answer.status_code == 401 and "opens nothing" in answer.text
        assert COOKIE not in browser.cookies
        assert len(key) < 2 or key not in answer.text


@pytest.mark.parametrize("change", ["revoked_at = now()", "expires_at = now() - interval '1 second'"])
async def test_a_key_that_no_longer_opens_signs_nobody_in(
    browser: Browser, society: Society, owner: asyncpg.Connection, change: str
) -> None:
    await owner.execute(f"UPDATE api_keys SET {change}")
    assert (await browser.sign_in(society.api_key)).status_code == 401
    assert COOKIE not in browser.cookies


ELSEWHERE = (
    *("//evil.example", "https://evil.example/x", "http:evil", "javascript:alert(1)", "/\\evil.example", "\\\\evil"),
    *("/\t/evil.example", "/\n", "evil", "", "///evil", "/" + "x" * 5_000, "//evil@site/", "https:/cycles", " //e"),
)


async def test_it_leads_back_to_paths_of_this_site_only(browser: Browser, society: Society) -> None:
    for back in ELSEWHERE:
        assert (await browser.sign_in(society.api_key, back=back)).headers["location"] == "/", back
        shown = await browser.get("/sign-in", params={"back": back})
        assert 'name="back" value="/"' in shown.text, back
        assert (await browser.get("/language/ne", params={"back": back})).headers["location"] == "/", back


async def test_a_cookie_that_was_kept_opens_nothing_after_sign_out(admin: Browser, app: FastAPI) -> None:
    kept = admin.cookies[COOKIE]
    answer = await admin.submit("/sign-out")
    assert answer.status_code == 303 and COOKIE not in admin.cookies
    async with Browser(app) as thief:
        thief.cookies.set(COOKIE, kept)
        refused(await thief.get("/api/tiers"), 401, "SESSION_EXPIRED")
        answer_to_thief = await thief.get("/cycles")
        leads_to_sign_in(answer_to_thief, "SESSION_EXPIRED", "/cycles")
        assert "Max-Age=0" in answer_to_thief.headers["set-cookie"]  # it is told to forget it
    shown = await admin.get(answer.headers["location"])
    assert "You are signed out" in shown.text


async def test_signing_out_ends_no_other_session(admin: Browser, app: FastAPI, society: Society) -> None:
    async with Browser(app) as phone:
        await phone.sign_in(society.api_key)
        await admin.submit("/sign-out")
        assert (await phone.get("/cycles")).status_code == 200


async def test_a_session_that_is_over_says_so_and_leads_back(admin: Browser, owner: asyncpg.Connection) -> None:
    await owner.execute("UPDATE sessions SET expires_at = clock_timestamp()")
    refused(await admin.get("/api/tiers"), 401, "SESSION_EXPIRED")
    answer = await admin.get("/workers")
    leads_to_sign_in(answer, "SESSION_EXPIRED", "/workers")
    assert "Your session is over" in (await admin.get(answer.headers["location"])).text


async def test_a_part_of_a_page_takes_the_whole_page_to_sign_in(admin: Browser, owner: asyncpg.Connection) -> None:
    await owner.execute("DELETE FROM sessions")
    answer = await admin.get("/cycles", headers={"HX-Request": "true", "HX-Current-Path": "/cycles?status=Failed"})
    assert answer.status_code == 401
    where = urlsplit(answer.headers["hx-redirect"])
    assert parse_qs(where.query) == {"back": ["/cycles?status=Failed"], "why": ["SESSION_EXPIRED"]}


async def test_a_form_of_an_old_session_changes_nothing(admin: Browser, owner: asyncpg.Connection) -> None:
    token = await admin.form_token("/users")
    await owner.execute("DELETE FROM sessions")
    async with unchanged(owner):
        answer = await admin.post("/users", data={"form_token": token, "email": "a@b.c", "name": "A", "role": "admin"})
    leads_to_sign_in(answer, "SESSION_EXPIRED", "/")


@pytest.mark.parametrize("change", ["UPDATE api_keys SET revoked_at = now()", "UPDATE users SET is_active = false"])
async def test_key_and_user_are_checked_at_every_request(
    admin: Browser, owner: asyncpg.Connection, change: str
) -> None:
    assert (await admin.get("/cycles")).status_code == 200
    await owner.execute(change)
    why = "USER_INACTIVE" if "users" in change else "SESSION_EXPIRED"
    leads_to_sign_in(await admin.get("/cycles"), why, "/cycles")


@pytest.fixture
async def known(settings: Settings, society: Society) -> Settings:
    return settings.model_copy(update={"session_secret": SECRET})


async def test_forged_cookies_open_nothing(known: Settings, society: Society, owner: asyncpg.Connection) -> None:
    app = create_app(known)
    async with app.router.lifespan_context(app), Browser(app) as browser:
        await browser.sign_in(society.api_key)
        genuine = browser.cookies[COOKIE]
        claims = jwt.decode(genuine, SECRET, ["HS256"])
        later = datetime.now(UTC) + timedelta(hours=1)
        sid = str(uuid4())
        head, body, signature = genuine.split(".")
        forged = {
            "not signed": (jwt.encode(claims, None, "none"), "UNAUTHORIZED"),
            "signed by another": (jwt.encode(claims, "y" * 40, "HS256"), "UNAUTHORIZED"),
            "another algorithm": (jwt.encode(claims, SECRET * 2, "HS512"), "UNAUTHORIZED"),
            "its body changed": (f"{head}.{body[:-2]}xx.{signature}", "UNAUTHORIZED"),
            "cut": (genuine[:-1], "UNAUTHORIZED"),
            "no cookie of ours": ("x", "UNAUTHORIZED"),
            "long": ("x" * 20_000, "UNAUTHORIZED"),
            "without an end": (jwt.encode({"ten": claims["ten"], "sid": sid}, SECRET, "HS256"), "UNAUTHORIZED"),
            "no ids": (jwt.encode({"ten": 1, "sid": ["x"], "exp": later}, SECRET, "HS256"), "UNAUTHORIZED"),
            "over": (jwt.encode({**claims, "exp": datetime.now(UTC)}, SECRET, "HS256"), "SESSION_EXPIRED"),
            "of no row": (jwt.encode({**claims, "sid": sid}, SECRET, "HS256"), "SESSION_EXPIRED"),
            "of another society": (jwt.encode({**claims, "ten": sid}, SECRET, "HS256"), "SESSION_EXPIRED"),
        }
        async with unchanged(owner):
            for name, (cookie, code) in forged.items():
                browser.cookies.clear()
                browser.cookies.set(COOKIE, cookie)
                assert (await browser.get("/api/tiers")).json()["code"] == code, name
                leads_to_sign_in(await browser.get("/cycles"), code, "/cycles")
        browser.cookies.set(COOKIE, genuine)
        assert (await browser.get("/cycles")).status_code == 200


async def test_processes_that_share_the_secret_share_sessions(known: Settings, society: Society) -> None:
    apps = [create_app(known), create_app(known), create_app(known.model_copy(update={"session_secret": ""}))]
    first, second, stranger = apps
    async with first.router.lifespan_context(first), Browser(first) as browser:
        await browser.sign_in(society.api_key)
        cookie = browser.cookies[COOKIE]
    for app, code in ((second, 200), (stranger, 401)):
        async with app.router.lifespan_context(app), Browser(app) as other:
            other.cookies.set(COOKIE, cookie)
            assert (await other.get("/api/tiers")).status_code == code


async def test_a_browsers_cookie_only_reads_the_api(
    admin: Browser, society: Society, owner: asyncpg.Connection
) -> None:
    assert (await admin.get("/api/contribution-cycles")).status_code == 200
    async with unchanged(owner):
        for method, path in (("POST", "/api/contribution-cycles"), ("POST", "/api/tiers"), ("DELETE", "/api/keys/x")):
            answer = await admin.request(method, path, json=start_of(society), headers={"Idempotency-Key": "1"})
            refused(answer, 401, "UNAUTHORIZED")


async def test_who_follows_a_link_on_another_site_is_not_asked_to_sign_in_anew(browser: Browser) -> None:
    """The browser sends the cookie as soon as a page of this site asks for the same."""
    answer = await browser.get("/cycles", headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 200 and "data-again" in answer.text
    leads_to_sign_in(await browser.get("/cycles", headers={"Sec-Fetch-Site": "same-origin"}), None, "/cycles")


async def test_a_key_that_is_sent_counts_before_any_cookie(
    admin: Browser, stranger: httpx.AsyncClient, other: Society
) -> None:
    headers = {"Authorization": f"Bearer {other.api_key}"}
    tiers = (await admin.get("/api/tiers", headers=headers)).json()["items"]
    assert [tier["tierId"] for tier in tiers] == [str(other.tier_id)]
    refused(await admin.get("/api/tiers", headers={"Authorization": "Bearer x"}), 401, "UNAUTHORIZED")


async def test_nobody_signs_another_browser_in(browser: Browser, app: FastAPI, society: Society) -> None:
    """With a form of the attacker's own: the victim would work for the attacker's society, and tell it things."""
    token = await browser.form_token("/sign-in")
    async with Browser(app) as victim:
        for headers in ({}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
            answer = await victim.post("/sign-in", data={"key": society.api_key, "form_token": token}, headers=headers)
            assert answer.status_code == 403 and "Allow cookies" in answer.text
            assert COOKIE not in victim.cookies
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "http://site.evil"}):
        answer = await browser.post("/sign-in", data={"key": society.api_key, "form_token": token}, headers=headers)
        assert answer.status_code == 403
    assert COOKIE not in browser.cookies


async def test_a_flood_of_wrong_keys_is_stopped_by_address(app: FastAPI, society: Society) -> None:
    async with Browser(app, "2001:db8::1") as flood, Browser(app, "2001:db8::2") as near, Browser(app) as other:
        token = await flood.form_token("/sign-in")
        answers = [
            (await flood.post("/sign-in", data={"form_token": token, "key": "x"})).status_code
            for _ in range(WRONG_KEYS.amount + 1)
        ]
        assert answers == [401] * WRONG_KEYS.amount + [429]
        for stopped in (flood, near):  # the same network of IPv6
            answer = await stopped.sign_in(society.api_key)
            assert answer.status_code == 429 and "Wait a minute" in answer.text
        assert (await other.sign_in(society.api_key)).status_code == 303


async def test_the_flood_is_stopped_without_redis_too(settings: Settings, society: Society) -> None:
    app = create_app(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"}))
    async with app.router.lifespan_context(app), Browser(app) as flood:
        token = await flood.form_token("/sign-in")
        for _ in range(WRONG_KEYS.amount):
            assert (await flood.post("/sign-in", data={"form_token": token, "key": "x"})).status_code == 401
        assert (await flood.post("/sign-in", data={"form_token": token, "key": society.api_key})).status_code == 429


async def test_what_is_over_is_forgotten(admin: Browser, engine: Engine, owner: asyncpg.Connection) -> None:
    await run_maintenance(engine, "purge_sessions")
    assert await owner.fetchval("SELECT count(*) FROM sessions") == 1
    await owner.execute("UPDATE sessions SET expires_at = clock_timestamp()")
    assert await run_maintenance(engine, "purge_sessions") == {"purged": 1}
    assert await owner.fetchval("SELECT count(*) FROM sessions") == 0


async def test_logs_hold_neither_cookies_nor_the_secret(admin: Browser, known: Settings) -> None:
    cookie = admin.cookies[COOKIE]
    clean = _Redact(known.secrets)(logging.getLogger(), "info", {"a": f"cookie {cookie};", "b": [SECRET], "event": "x"})
    assert clean == {"a": "cookie ***;", "b": ["***"], "event": "x"}


async def test_what_is_changed_in_a_session_is_audited_as_its_users(
    admin: Browser, society: Society, owner: asyncpg.Connection
) -> None:
    answer = await admin.submit("/users", "/users", email="ram@x.np", name="Ram", role="viewer")
    assert answer.status_code == 303, answer.text
    entry = await owner.fetchrow("SELECT * FROM audit_log WHERE table_name = 'users' ORDER BY entry_id DESC LIMIT 1")
    assert (entry["user_id"], entry["address"]) == (society.user_id, "127.0.0.1")
    assert entry["key_id"] and entry["request_id"] == answer.headers["x-request-id"]


async def test_viewers_sign_in_too(signed_in_as: Callable[[str], Awaitable[Browser]]) -> None:
    assert (await (await signed_in_as("viewer")).get("/cycles")).status_code == 200
