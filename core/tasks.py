"""How a background task is ended."""

import asyncio
from typing import Any

ASK_AGAIN_SECONDS = 0.1


async def end_task(task: asyncio.Task[Any]) -> None:
    """Cancel `task` until it is done; what it ended with stays in it.

    One cancel may be lost: `asyncio.wait_for`, with which redis-py sends, swallows on Python 3.11 a cancel that comes
    in the very moment in which what it waits for ends.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=ASK_AGAIN_SECONDS)
