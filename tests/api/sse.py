"""A client of server-sent events, as browsers are one."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import httpx

from tests.support import eventually


@dataclass(frozen=True)
class Event:
    name: str
    data: Any
    number: int | None
    at: float


class Stream:
    """Reads until the server ends it, or the block does. `events` grows meanwhile."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.ended = asyncio.Event()

    def named(self, name: str) -> list[Any]:
        return [event.data for event in self.events if event.name == name]

    async def saw(self, wanted: Any, seconds: float = 30) -> Any:
        """Waits for an event whose data is `wanted`; returns it."""

        async def found() -> Any:
            return next((event.data for event in self.events if wanted(event.data)), None)

        return await eventually(found, seconds=seconds)

    async def read(self, answer: httpx.Response) -> None:
        fields: dict[str, str] = {}
        now = asyncio.get_running_loop().time
        async with aclosing(answer.aiter_lines()) as lines:
            async for line in lines:
                name, _, value = line.partition(": ")
                if line:
                    fields[name] = value
                elif "data" in fields:
                    number = int(fields["id"]) if "id" in fields else None
                    self.events.append(Event(fields["event"], json.loads(fields["data"]), number, now()))
                    fields = {}
        self.ended.set()


@contextlib.asynccontextmanager
async def streamed(url: str, path: str, api_key: str, **headers: str) -> AsyncIterator[Stream]:
    """The stream at `path`, while the block lasts."""
    stream = Stream()
    sent = {"Authorization": f"Bearer {api_key}", **headers}
    async with (
        httpx.AsyncClient(base_url=url, timeout=60, headers=sent) as client,
        client.stream("GET", path) as answer,
    ):
        assert answer.status_code == 200, (await answer.aread()).decode()
        assert answer.headers["content-type"].startswith("text/event-stream")
        reading = asyncio.create_task(stream.read(answer))
        try:
            yield stream
        finally:
            reading.cancel()
            await asyncio.wait([reading])
