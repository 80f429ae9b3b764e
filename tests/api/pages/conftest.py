"""Browsers without a screen: they keep cookies and send forms as the pages have them."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest
from fastapi import FastAPI

from tests.support import Society

BROWSERS_SAY = {"Accept": "text/html,*/*;q=0.8"}


class Browser(httpx.AsyncClient):
    """Speaks to the app in this process; follows no redirect by itself."""

    def __init__(self, app: FastAPI, address: str = "127.0.0.1", base_url: str = "http://site") -> None:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(address, 1))
        super().__init__(transport=transport, base_url=base_url, headers=BROWSERS_SAY)

    async def form_token(self, path: str) -> str:
        found = re.search('name="form_token" value="([0-9a-f]+)"', (await self.get(path)).text)
        assert found, f"{path} has no form"
        return found[1]

    async def submit(self, path: str, page: str = "/cycles", **fields: str) -> httpx.Response:
        """As the form on `page` does."""
        return await self.post(path, data={"form_token": await self.form_token(page), **fields})

    async def sign_in(self, key: str, back: str = "/cycles") -> httpx.Response:
        return await self.submit("/sign-in", "/sign-in", key=key, back=back)


@pytest.fixture
async def browser(app: FastAPI, society: Society) -> AsyncIterator[Browser]:
    """Nobody is signed in."""
    async with Browser(app) as browser:
        yield browser


@pytest.fixture
async def admin(browser: Browser, society: Society) -> Browser:
    """The society's admin is signed in."""
    assert (await browser.sign_in(society.api_key)).status_code == 303
    return browser


@pytest.fixture
async def signed_in_as(
    app: FastAPI, key_for: Callable[[str], Awaitable[str]]
) -> AsyncIterator[Callable[[str], Awaitable[Browser]]]:
    """`await signed_in_as("viewer")`: a browser of a new user with that role."""
    browsers: list[Browser] = []

    async def sign_in(role: str) -> Browser:
        browsers.append(Browser(app))
        assert (await browsers[-1].sign_in(await key_for(role))).status_code == 303
        return browsers[-1]

    yield sign_in
    for browser in browsers:
        await browser.aclose()
