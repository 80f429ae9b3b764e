"""An operator's shell, with a real API behind it."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from core.settings import Settings
from tests.shell import Shell
from tests.support import Api, Society


@pytest.fixture
async def api(start_api: Callable[..., Awaitable[Api]]) -> Api:
    return await start_api()


@pytest.fixture
async def shell(api: Api, society: Society, settings: Settings) -> AsyncIterator[Shell]:
    """With the key of the society's admin."""
    shell = Shell(
        {
            "GUTHI_API_URL": api.url,
            "GUTHI_API_KEY": society.api_key,
            "GUTHI_DATABASE_URL": settings.database_url,
            "GUTHI_REDIS_URL": settings.redis_url,
            "GUTHI_QUEUE_NAME": settings.queue_name,
        }
    )
    yield shell
    shell.close()
