"""All SQL of the application, loaded once from `sql/queries`: `sql.advance_shard(tx.connection, …)`.

The suffix of a query's name says what comes back (aiosql): `^` a row or None, `$` a value, `!` the
command's tag, nothing an async iterator of rows. Parameters are passed by name.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiosql
from aiosql.adapters.asyncpg import AsyncPGAdapter

from core.calls import call

SQL_ROOT = Path(__file__).parent.parent / "sql"


class NamedCalls(AsyncPGAdapter):
    """aiosql's asyncpg, with each query going through the seam of `core.calls` by its name."""

    async def select(self, conn: Any, query_name: str, *args: Any, **options: Any) -> AsyncIterator[Any]:
        async def fetch() -> list[Any]:
            rows: AsyncIterator[Any] = super(NamedCalls, self).select(conn, query_name, *args, **options)  # type: ignore[no-untyped-call]
            return [row async for row in rows]

        for row in await call(f"sql:{query_name}", fetch):
            yield row

    async def select_one(self, conn: Any, query_name: str, *args: Any, **options: Any) -> Any:
        return await call(f"sql:{query_name}", super().select_one, conn, query_name, *args, **options)

    async def select_value(self, conn: Any, query_name: str, *args: Any, **options: Any) -> Any:
        return await call(f"sql:{query_name}", super().select_value, conn, query_name, *args, **options)

    async def insert_update_delete(self, conn: Any, query_name: str, *args: Any, **options: Any) -> Any:
        return await call(f"sql:{query_name}", super().insert_update_delete, conn, query_name, *args, **options)


sql: Any = aiosql.from_path(
    SQL_ROOT / "queries",
    NamedCalls,  # type: ignore[arg-type]  # an adapter without types, as is the one it builds on
    mandatory_parameters=False,
)


def affected(tag: str) -> int:
    """Rows that a command tag such as `INSERT 0 5000` counts."""
    return int(tag.rsplit(" ", 1)[1])
