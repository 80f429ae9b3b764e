"""Every page, light and dark, wide and narrow, with hostile names on it: nothing breaks, runs, or is out of reach."""

from collections.abc import Callable
from typing import Any, Literal

import asyncpg
import httpx
import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import expect

from tests.api.expect import start_of
from tests.browser.conftest import Meet, Site
from tests.cycles import SMALL_STEPS, becomes
from tests.support import Worker

HOSTILE = "<script>alert(1)</script>\u202eenod\u202c \"'><img src=x onerror=alert(2)> " + "W" * 100


@pytest.fixture
async def paths(site: Site, owner: asyncpg.Connection, start_worker: Callable[..., Worker]) -> list[str]:
    """All pages, with a cycle that is made, one that waits, and names that want to break them."""
    for table, column in (("tiers", "name"), ("members", "full_name"), ("users", "name"), ("tenants", "name")):
        await owner.execute(f"UPDATE {table} SET {column} = $1", HOSTILE)
    start_worker(**SMALL_STEPS)
    headers = {"Authorization": f"Bearer {site.key}"}
    async with httpx.AsyncClient(base_url=site.api.url, headers=headers) as client:

        async def start(**changes: object) -> dict[str, Any]:
            key = {"Idempotency-Key": str(len(changes))}
            body = start_of(site.society, strategy="queued", **changes)
            answer: dict[str, Any] = (await client.post("/api/contribution-cycles", json=body, headers=key)).json()
            return answer

        made, waiting = await start(), await start(durationDays=1)
        await client.post(f"/api/jobs/{waiting['jobId']}/pause")
        await becomes(owner, made["cycleId"], "Active")
    return [
        *("/cycles", "/start-cycle?tier=A", "/jobs", "/maintenance", "/maintenance/sweep", "/workers", "/users"),
        *(f"/cycles/{cycle['cycleId']}" for cycle in (made, waiting)),
        *(f"/jobs/{cycle['jobId']}" for cycle in (made, waiting)),
        *("/nothing", "/sign-in"),
    ]


@pytest.mark.parametrize(("scheme", "language"), [("light", "en"), ("dark", "ne")])
async def test_every_page(
    site: Site, meet: Meet, paths: list[str], scheme: Literal["light", "dark"], language: str
) -> None:
    sita = await meet(color_scheme=scheme, locale=language, reduced_motion="reduce")
    page = await sita.sign_in(site.key)
    page.on("dialog", lambda dialog: sita.complaints.append(f"a dialog: {dialog.message}"))
    axe = Axe()
    for path in paths:
        await page.set_viewport_size({"width": 1280, "height": 800})
        await page.goto(path)
        assert await page.locator("html").get_attribute("lang") == language
        found = (await axe.run(page)).response["violations"]
        serious = [
            f"{rule['id']}: {rule['nodes'][0]['html'][:200]}"
            for rule in found
            if rule["impact"] in ("serious", "critical")
        ]
        assert serious == [], path
        await page.set_viewport_size({"width": 360, "height": 800})
        widths = await page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert widths[0] <= widths[1], f"{path} is wider than 360 px"
    assert [said for said in sita.complaints if "404" not in said] == []


async def test_it_is_all_reached_by_keyboard(site: Site, meet: Meet, paths: list[str]) -> None:
    sita = await meet()
    page = await sita.sign_in(site.key)
    await page.goto("/jobs?state=Paused")
    await page.keyboard.press("Tab")
    await expect(page.locator(".skip")).to_be_focused()
    resume = page.locator("[popovertarget]:text-is('Resume')").first
    await resume.focus()
    await page.keyboard.press("Enter")
    dialog = page.locator(".confirm:popover-open")
    await expect(dialog).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(dialog).to_have_count(0)
    await expect(resume).to_be_focused()
    assert sita.complaints == []
