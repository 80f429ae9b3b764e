"""What every page says to the browser, and that nothing on it runs or looks by a word in the page."""

import re

from tests.api.expect import UNKNOWN
from tests.api.pages.conftest import Browser

PAGES = ("/cycles", "/start-cycle", "/jobs", "/maintenance", "/maintenance/sweep", "/workers", "/users")
OTHERS = ("/", "/sign-in", "/nothing", f"/cycles/{UNKNOWN}", "/cycles/x", f"/jobs/{UNKNOWN}", "/language/xx")


async def test_each_is_guarded_and_kept_by_nobody(admin: Browser) -> None:
    for path in PAGES + OTHERS:
        headers = (await admin.get(path)).headers
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'", path
        for source in ("script-src", "style-src", "connect-src", "form-action"):
            assert policy[source] == "'self'", path
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["referrer-policy"] == "no-referrer", path
        assert headers["cache-control"] == "no-store", path


async def test_nothing_is_inline(admin: Browser) -> None:
    for path in PAGES:
        page = await admin.get(path)
        assert page.status_code == 200, page.text
        assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|<script(?![^>]*\ssrc=)", page.text), path
        used = re.findall(r'\s(?:src|href|action|hx-get)="([^"]*)"', page.text)
        assert used and all(where.startswith(("/", "#")) and not where.startswith("//") for where in used), path


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


async def test_people_are_given_a_page_and_programs_a_problem(browser: Browser) -> None:
    for path in ("/nothing", "/cycles/a/b/c", "/x//", "/%00", "/%FF"):
        page = await browser.get(path)
        assert page.status_code == 404 and page.headers["content-type"].startswith("text/html"), path
        assert "There is nothing here" in page.text
        problem = await browser.get(path, headers={"Accept": "application/json"})
        assert problem.status_code == 404 and problem.headers["content-type"] == "application/problem+json", path
    assert (await browser.get("/api/nothing")).headers["content-type"] == "application/problem+json"


async def test_a_method_that_is_not_there_is_a_page(admin: Browser) -> None:
    answer = await admin.request("DELETE", "/cycles")
    assert answer.status_code == 405 and answer.headers["allow"] == "GET"
    assert answer.headers["content-type"].startswith("text/html")
