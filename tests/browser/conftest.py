"""A real browser on the pages of a real API process. Without chromium these tests are skipped, and say so."""

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright, expect

from domain.api_keys import new_api_key
from tests.support import Api, Society, make_society

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
]
MEMBERS = 2_000
PATIENCE_MS = 60_000
SECRET = "the same before and after a restart of the API"
expect.set_options(timeout=PATIENCE_MS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = pytest.mark.skip(reason=f"{CHROMIUM} is missing; on Debian: apt-get install chromium")
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(240))
            if not Path(CHROMIUM).exists():
                item.add_marker(missing)


@dataclass
class Site:
    """`key`: the society's admin's."""

    api: Api
    society: Society

    @property
    def key(self) -> str:
        return self.society.api_key


@pytest.fixture
async def site(owner: asyncpg.Connection, start_api: Callable[..., Awaitable[Api]]) -> Site:
    society = await make_society(owner, MEMBERS)
    return Site(await start_api(GUTHI_SESSION_SECRET=SECRET), society)


@pytest.fixture
async def chromium(tmp_path: Path) -> AsyncIterator[Browser]:
    """A fresh one, so that no test finds what another has left."""
    home = {**os.environ, "HOME": str(tmp_path)}
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, env=home)
        yield browser
        await browser.close()
    shutil.rmtree(tmp_path, ignore_errors=True)


class Person:
    """Somebody's browser. `complaints`: what its console said, and what its policy forbade."""

    def __init__(self, site: Site, context: BrowserContext) -> None:
        self.site, self.context = site, context
        self.complaints: list[str] = []

    async def tab(self, path: str | None = None) -> Page:
        page = await self.context.new_page()
        page.on("console", self._listen)
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        if path:
            await page.goto(path)
        return page

    async def sign_in(self, key: str) -> Page:
        page = await self.tab("/sign-in")
        await page.fill("#key", key)
        await page.click("main button[type=submit]")
        await page.wait_for_url("**/cycles")
        return page

    def _listen(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")


Meet = Callable[..., Awaitable[Person]]


@pytest.fixture
async def meet(site: Site, chromium: Browser) -> AsyncIterator[Meet]:
    """`await meet(color_scheme="dark")`: a person with a browser profile of their own."""
    people: list[Person] = []

    async def somebody(**options: Any) -> Person:
        context = await chromium.new_context(base_url=site.api.url, **options)
        context.set_default_timeout(PATIENCE_MS)
        people.append(Person(site, context))
        return people[-1]

    yield somebody
    for person in people:
        await person.context.close()


async def key_of_role(owner: asyncpg.Connection, society: Society, role: str) -> str:
    user_id = await owner.fetchval(
        "INSERT INTO users (tenant_id, email, name, role) VALUES ($1, $2, $2, $2) RETURNING user_id",
        society.tenant_id,
        role,
    )
    return (await new_api_key(owner, society.tenant_id, user_id)).api_key
