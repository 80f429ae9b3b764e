"""Every form comes from a page of the session that sends it, or nothing is done."""

import re

import asyncpg
from fastapi import FastAPI

from api.app import create_app
from api.pages import ROUTERS
from core.settings import Settings
from tests.api.expect import UNKNOWN, unchanged
from tests.api.pages.conftest import Browser
from tests.support import Society

FORMS = sorted(
    re.sub("{.*?}", lambda part: "pause" if part[0] == "{verb}" else UNKNOWN, route.path)
    for router in ROUTERS
    for route in router.routes
    if "POST" in route.methods and route.path != "/sign-in"
)
FIELDS = {"email": "a@b.c", "name": "A", "role": "admin", "version": "1", "isActive": "true", "tierId": UNKNOWN}


def test_there_are_forms() -> None:
    assert "/sign-out" in FORMS and f"/jobs/{UNKNOWN}/pause" in FORMS and len(FORMS) >= 8


async def test_a_forged_form_changes_nothing(
    admin: Browser, app: FastAPI, other: Society, owner: asyncpg.Connection
) -> None:
    async with Browser(app) as elsewhere:
        await elsewhere.sign_in(other.api_key)
        others = await elsewhere.form_token("/users")
    mine = await admin.form_token("/users")
    sent: list[tuple[str | None, dict[str, str]]] = [
        (None, {}),
        ("", {}),
        ("x", {}),
        ("é" * 64, {}),
        (others, {}),
        (mine[:-1], {}),
        (mine, {"Sec-Fetch-Site": "cross-site"}),
        (mine, {"Sec-Fetch-Site": "same-site"}),
        (mine, {"Sec-Fetch-Site": "none"}),
        (mine, {"Origin": "https://evil.example"}),
        (mine, {"Origin": "http://site.evil.example"}),
        (mine, {"Origin": "http://evil@site:1"}),
    ]
    async with unchanged(owner):
        for path in FORMS:
            for token, headers in sent:
                fields = FIELDS if token is None else {**FIELDS, "form_token": token}
                answer = await admin.post(path, data=fields, headers=headers)
                assert answer.status_code == 403 and "FORM_REFUSED" in answer.text, (path, token, headers)
                assert "Nothing was changed" in answer.text
    assert (await admin.get("/cycles")).status_code == 200  # still signed in


async def test_a_form_of_ones_own_page_is_taken(admin: Browser) -> None:
    sent: tuple[dict[str, str], ...] = ({}, {"Sec-Fetch-Site": "same-origin"}, {"Origin": "http://site"})
    for number, headers in enumerate(sent):
        fields = {
            "form_token": await admin.form_token("/users"),
            "email": f"{number}@b.c",
            "name": "A",
            "role": "viewer",
        }
        assert (await admin.post("/users", data=fields, headers=headers)).status_code == 303, headers


async def test_a_token_of_the_session_before_is_old(admin: Browser, society: Society) -> None:
    token = await admin.form_token("/users")
    await admin.sign_in(society.api_key)
    answer = await admin.post("/users", data={**FIELDS, "form_token": token})
    assert answer.status_code == 403


FORM, PARTS = "application/x-www-form-urlencoded", "multipart/form-data"
NO_FORMS = (
    (b"form_token=%FF%FE", FORM),
    (b"{}", "application/json"),
    (b"--x\r\ngarbage", f"{PARTS}; boundary=x"),
    (b"x", PARTS),
    (b"&".join(b"a%d=1" % n for n in range(10_000)), FORM),
    (b'--x\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\nx\r\n--x--\r\n', f"{PARTS}; boundary=x"),
)


async def test_what_is_no_form_is_refused_as_a_page(admin: Browser, owner: asyncpg.Connection) -> None:
    async with unchanged(owner):
        for content, content_type in NO_FORMS:
            answer = await admin.post("/users", content=content, headers={"Content-Type": content_type})
            assert answer.status_code in (400, 403), content[:50]
            assert answer.headers["content-type"].startswith("text/html")


async def test_no_page_is_in_the_apis_document() -> None:
    document = create_app(Settings(_env_file=None, database_url="postgresql://nowhere")).openapi()
    assert {path.split("/")[1] for path in document["paths"]} == {"api", "livez", "readyz", "metrics"}
