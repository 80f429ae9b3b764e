"""What every page says to the browser, and that nothing on it runs or looks by a word in the page."""

import re

import pytest

from tests.api.expect import UNKNOWN
from tests.api.pages.conftest import Browser

PAGES = ("/cycles", "/start-cycle", "/jobs", "/maintenance", "/maintenance/sweep", "/workers", "/users")
OTHERS = ("/", "/sign-in", "/nothing", f"/cycles/{UNKNOWN}", "/cycles/x", f"/jobs/{UNKNOWN}", "/language/xx")


@pytest.mark.parametrize("path", PAGES + OTHERS)
async def test_each_is_guarded_and_kept_by_nobody(admin: Browser, path: str) -> None:
    headers = (await admin.get(path)).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == policy["form-action"] == "'self'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", PAGES)
async def test_nothing_is_inline(admin: Browser, path: str) -> None:
    page = await admin.get(path)
    assert page.status_code == 200, page.text
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|<script(?![^>]*\ssrc=)", page.text)
    used = re.findall(r'(?:src|href|action|hx-get)="([^"]*)"', page.text)
    assert used and all(where.startswith(("/", "#")) and not where.startswith("//") for where in used)


async def test_assets_are_ours_and_asked_for_anew(admin: Browser) -> None:
    for name in ("guthi.js", "guthi.css", "htmx.min.js", "icon.svg"):
        answer = await admin.get(f"/static/{name}")
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-cache")
        again = await admin.get(f"/static/{name}", headers={"If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2f..%2fapp.py", "/static/", "/static/x"):
        assert (await admin.get(path)).status_code == 404


async def test_the_first_page_leads_to_the_cycles(browser: Browser) -> None:
    answer = await browser.get("/")
    assert (answer.status_code, answer.headers["location"]) == (303, "/cycles")


@pytest.mark.parametrize("path", ["/nothing", "/cycles/a/b/c", "/x//", "/%00", "/%FF"])
async def test_people_are_given_a_page_and_programs_a_problem(browser: Browser, path: str) -> None:
    page = await browser.get(path)
    assert page.status_code == 404 and page.headers["content-type"].startswith("text/html")
    assert "There is nothing here" in page.text
    problem = await browser.get(path, headers={"Accept": "application/json"})
    assert problem.status_code == 404 and problem.headers["content-type"] == "application/problem+json"
    assert (await browser.get("/api/nothing")).headers["content-type"] == "application/problem+json"


async def test_a_method_that_is_not_there_is_a_page(admin: Browser) -> None:
    answer = await admin.request("DELETE", "/cycles")
    assert answer.status_code == 405 and answer.headers["allow"] == "GET"
    assert answer.headers["content-type"].startswith("text/html")
