"""Nobody but the database makes the id of a new row: checked in the schema, in every INSERT, in the API's document.

Run by `scripts/check`: `python -m scripts.check_ids`. Starts an embedded PostgreSQL of its own for a moment.
"""

import asyncio
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any

import asyncpg

from api.app import create_app
from core.settings import Settings
from db.embedded import EmbeddedPostgres
from db.migrate import migrate
from db.queries import SQL_ROOT

NOT_IDS: Mapping[str, str] = {
    "contributions.cycle_id": "names the cycle; without a foreign key, which would cost a trigger a row",
    "contributions.member_id": "names the member, likewise",
    "member_import_rows.import_id": "names the job's subject; made by uuidv7() in new_import_id",
    "member_import_rows.line_no": "the line of the file",
    "batch_job_shards.shard_no": "the place in the job's plan",
    "batch_job_samples.job_id": "names the job; without a foreign key, which would lock its row",
    "batch_job_samples.shard_no": "names the shard, likewise",
}
"""Columns of primary keys that identify something else than a new row, each with its reason."""
MAKES_NO_ROW = {"/api/contribution-cycles/preview"}

COLUMNS = """
SELECT
    c.relname || '.' || a.attname AS name, format_type(a.atttypid, NULL) AS type,
    a.attidentity::text AS identity, coalesce(pg_get_expr(d.adbin, d.adrelid), '') AS default_value,
    EXISTS (
        SELECT FROM pg_constraint AS k WHERE k.conrelid = c.oid AND k.contype = 'p' AND a.attnum = any(k.conkey)
    ) AND NOT EXISTS (
        SELECT FROM pg_constraint AS k WHERE k.conrelid = c.oid AND k.contype = 'f' AND a.attnum = any(k.conkey)
    ) AS is_own_key
FROM pg_class AS c
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE (a.attname <> 'tenant_id' OR c.relname = 'tenants')
  AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relnamespace = 'public'::regnamespace
ORDER BY 1
"""
_INSERT = re.compile(r"INSERT\s+INTO\s+(\w+)(?:\s+AS\s+\w+)?\s*(?:\(([^)]*)\))?", re.IGNORECASE)
_COMMENT = re.compile("--.*")


def own_ids(columns: Iterable[Mapping[str, Any]]) -> set[str]:
    """`table.column` of each id that the database must make: numbers and uuids that are a table's own key."""
    return {
        column["name"]
        for column in columns
        if column["is_own_key"] and column["type"] in ("uuid", "smallint", "integer", "bigint")
    } - set(NOT_IDS)


def bad_columns(columns: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    columns = list(columns)
    ids = own_ids(columns)
    for column in columns:
        made_here = column["identity"] == "a" or (column["type"] == "uuid" and column["default_value"] == "uuidv7()")
        if column["name"] in ids and not made_here:
            yield f"{column['name']}: an id must be GENERATED ALWAYS AS IDENTITY or DEFAULT uuidv7()"
        elif column["identity"] == "d" or "nextval(" in column["default_value"]:
            yield f"{column['name']}: a sequence that rows can pass by; make it GENERATED ALWAYS AS IDENTITY"


def bad_inserts(queries: str, ids: Set[str]) -> Iterator[str]:
    queries = _COMMENT.sub("", queries)
    if re.search(r"OVERRIDING\s+(SYSTEM|USER)\s+VALUE", queries, re.IGNORECASE):
        yield "OVERRIDING ... VALUE: the database gives ids"
    for table, columns in _INSERT.findall(queries):
        if not columns:
            yield f"INSERT INTO {table}: name its columns"
        for column in re.findall(r"\w+", columns):
            if f"{table}.{column}" in ids:
                yield f"INSERT INTO {table}: must not give {column}"


def bad_bodies(document: Mapping[str, Any]) -> Iterator[str]:
    """The id that an answer of a POST leads with is that of the new row: the body must not bring it."""
    for path, methods in document["paths"].items():
        post = methods.get("post", {})
        sent = _properties(document, post.get("requestBody", {}))
        own = {"id"}
        for status in ("200", "201", "202"):
            answered = _properties(document, post.get("responses", {}).get(status, {}))
            own |= set([name for name in answered if name.endswith("Id")][:1])
        for name in sorted(own & set(sent)) if path not in MAKES_NO_ROW else ():
            yield f"POST {path}: the body must not bring {name}"


def _properties(document: Mapping[str, Any], content: Mapping[str, Any]) -> list[str]:
    schema = content.get("content", {}).get("application/json", {}).get("schema", {})
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return list(schema.get("properties", {}))


async def _columns(url: str) -> list[Mapping[str, Any]]:
    connection = await asyncpg.connect(url)
    try:
        return [dict(row) for row in await connection.fetch(COLUMNS)]
    finally:
        await connection.close()


def main() -> int:
    with (
        tempfile.TemporaryDirectory(prefix="gi", dir="/tmp") as base,  # a socket's path must be short
        EmbeddedPostgres(Path(base) / "p") as server,
    ):
        migrate(server.admin_url)
        columns = asyncio.run(_columns(server.admin_url))
        document = create_app(Settings(_env_file=None, database_url=server.app_url)).openapi()
    bad = [*bad_columns(columns), *bad_bodies(document)]
    for file in sorted((SQL_ROOT / "queries").glob("*.sql")):
        bad += [f"{file.name}: {what}" for what in bad_inserts(file.read_text(), own_ids(columns))]
    for each in bad:
        print(each, file=sys.stderr)
    print(f"{len(own_ids(columns))} kinds of id, {'none' if not bad else len(bad)} made outside the database")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
