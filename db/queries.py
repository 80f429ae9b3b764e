"""All SQL of the application, loaded once from `sql/queries`: `sql.advance_shard(tx.connection, …)`.

The suffix of a query's name says what comes back (aiosql): `^` a row or None, `$` a value, `!` the
command's tag, nothing an async iterator of rows. Parameters are passed by name.
"""

from pathlib import Path
from typing import Any

import aiosql

SQL_ROOT = Path(__file__).parent.parent / "sql"

sql: Any = aiosql.from_path(SQL_ROOT / "queries", "asyncpg", mandatory_parameters=False)


def affected(tag: str) -> int:
    """Rows that a command tag such as `INSERT 0 5000` counts."""
    return int(tag.rsplit(" ", 1)[1])
