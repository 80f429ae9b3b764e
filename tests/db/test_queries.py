"""Every query of sql/queries is prepared on a real server, in a search path and with the rights of its caller."""

import asyncpg
import pytest

from db.queries import sql
from tests.conftest import Servers

NAMES = [name for name in sql.available_queries if not name.endswith("_cursor")]
OWNERS = {"insert_tenant", "check_sequence_health", "repair_sequence"}
"""What only the owner may do."""


@pytest.mark.parametrize("name", NAMES)
async def test_it_can_be_prepared(servers: Servers, name: str) -> None:
    url = servers.postgres.admin_url if name in OWNERS else servers.postgres.app_url
    connection = await asyncpg.connect(url)
    try:
        statement = await connection.prepare(getattr(sql, name).sql)
        if statement.get_query().startswith("SET "):
            return
        # That checks names and types; a plan checks the rights, too.
        nulls = ", ".join(["NULL"] * len(statement.get_parameters()))
        await connection.execute(f"PREPARE checked AS {getattr(sql, name).sql.rstrip().rstrip(';')}")
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        await connection.execute(f"EXPLAIN (COSTS OFF) EXECUTE checked{f'({nulls})' if nulls else ''}")
    finally:
        await connection.close()
