"""The owner's connection, opened anew when PostgreSQL has cut it."""

from collections.abc import Callable
from typing import Any

import asyncpg

AWAY = (
    *(OSError, TimeoutError, asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError),
    *(asyncpg.InterfaceError, asyncpg.InternalClientError),
)
"""What a call raises while PostgreSQL is away."""


class Reconnecting:
    """Takes asyncpg's calls (`fetch`, `fetchval`, …); one at a time, like the connection itself."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: asyncpg.Connection | None = None

    async def get(self) -> asyncpg.Connection:
        """Raises one of `AWAY` when there is none to be had."""
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(self._url)
        return self._connection

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.terminate()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def call(*arguments: Any) -> Any:
            connection = await self.get()
            try:
                return await getattr(connection, name)(*arguments)
            except AWAY:
                connection.terminate()
                raise

        return call
