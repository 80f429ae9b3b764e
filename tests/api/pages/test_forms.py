"""Every form comes from a page of the session that sends it, or nothing is done."""

import re

import asyncpg
import pytest
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


@pytest.mark.parametrize("path", FORMS)
async def test_a_forged_form_changes_nothing(
    admin: Browser, app: FastAPI, other: Society, owner: asyncpg.Connection, path: str
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
        for token, headers in sent:
            fields = FIELDS if token is None else {**FIELDS, "form_token": token}
            answer = await admin.post(path, data=fields, headers=headers)
            assert answer.status_code == 403 and "FORM_REFUSED" in answer.text, (token, headers)
            assert "Nothing was changed" in answer.text
    assert (await admin.get("/cycles")).status_code == 200  # still signed in


@pytest.mark.parametrize("headers", [{}, {"Sec-Fetch-Site": "same-origin"}, {"Origin": "http://site"}])
async def test_a_form_of_ones_own_page_is_taken(admin: Browser, headers: dict[str, str]) -> None:
    admin.headers.update(headers)
    assert (await admin.submit("/users", "/users", email="a@b.c", name="A", role="viewer")).status_code == 303


async def test_a_token_of_the_session_before_is_old(admin: Browser, society: Society) -> None:
    token = await admin.form_token("/users")
    await admin.sign_in(society.api_key)
    answer = await admin.post("/users", data={**FIELDS, "form_token": token})
    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b"form_token=%FF%FE", "application/x-www-form-urlencoded"),
        (b"{}", "application/json"),
        (b"--x\r\ngarbage", "multipart/form-data; boundary=x"),
        (b"x", "multipart/form-data"),
        (b"&".join(b"a%d=1" % n for n in range(10_000)), "application/x-www-form-urlencoded"),
        (
            b'--x\r\nContent-Disposition: form-data; name="form_token"; filename="a"\r\n\r\nx\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
        ),
    ],
)
async def test_what_is_no_form_is_refused_as_a_page(
    admin: Browser, owner: asyncpg.Connection, content: bytes, content_type: str
) -> None:
    async with unchanged(owner):
        answer = await admin.post("/users", content=content, headers={"Content-Type": content_type})
    assert answer.status_code in (400, 403)
    assert answer.headers["content-type"].startswith("text/html")


async def test_no_page_is_in_the_apis_document() -> None:
    document = create_app(Settings(_env_file=None, database_url="postgresql://nowhere")).openapi()
    assert {path.split("/")[1] for path in document["paths"]} == {"api", "livez", "readyz", "metrics"}
