"""Bodies have a size limit, told or not."""

from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest

from api.app import create_app
from core.settings import Settings
from tests.api.conftest import client_of
from tests.api.expect import refused, unchanged
from tests.support import Society

MOST = 2_048


@pytest.fixture
async def strict(settings: Settings, society: Society) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(settings.model_copy(update={"max_body_bytes": MOST, "max_import_bytes": 2 * MOST}))
    async with app.router.lifespan_context(app), client_of(app, society.api_key) as client:
        yield client


async def in_pieces(size: int) -> AsyncIterator[bytes]:
    """Sent chunked, without a content-length."""
    for _ in range(0, size, 64):
        yield b" " * 64


@pytest.mark.parametrize(("path", "most"), [("/api/agents", MOST), ("/api/members/import", 2 * MOST)])
async def test_a_body_above_the_limit_is_413(
    strict: httpx.AsyncClient, owner: asyncpg.Connection, path: str, most: int
) -> None:
    kind = "text/csv" if path.endswith("import") else "application/json"
    headers = {"Idempotency-Key": "k", "Content-Type": kind}
    async with unchanged(owner):
        for content in (b" " * (most + 1), in_pieces(most + 64)):
            problem = refused(await strict.post(path, content=content, headers=headers), 413, "INVALID_INPUT")
            assert str(most) in problem["detail"]
        for content in (b" " * most, in_pieces(most)):
            assert (await strict.post(path, content=content, headers=headers)).status_code in (400, 422)
