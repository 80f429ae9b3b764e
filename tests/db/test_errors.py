"""What PostgreSQL refuses, in the words of a caller: asked of a real server, as the app's bound role."""

import asyncpg
import pytest

from core.errors import DuplicateResourceError, GuthiError, InvalidInputError, UnavailableError
from db.errors import translate
from jobs.engine.engine import Engine
from tests.support import Society


async def refusal(engine: Engine, society: Society, statement: str) -> GuthiError | None:
    with pytest.raises(asyncpg.PostgresError) as caught:
        async with engine.database.transaction(society.tenant_id) as tx:
            await tx.connection.execute(statement.replace(":tenant", f"'{society.tenant_id}'"))
    return translate(caught.value)


@pytest.mark.parametrize(
    ("statement", "kind", "field"),
    [
        ("INSERT INTO agents (tenant_id, code, name) VALUES (:tenant, 'AG1', 'x')", DuplicateResourceError, "code"),
        ("UPDATE members SET agent_id = uuidv7()", InvalidInputError, "agent_id"),
        ("UPDATE members SET gender = 'X'", InvalidInputError, None),
        ("UPDATE tiers SET contribution_amount = 1e20", InvalidInputError, None),
        ("SET LOCAL statement_timeout = 1; SELECT pg_sleep(1)", UnavailableError, None),
    ],
)
async def test_what_a_caller_can_mend_is_said(
    engine: Engine, society: Society, statement: str, kind: type[GuthiError], field: str | None
) -> None:
    error = await refusal(engine, society, statement)
    assert type(error) is kind
    assert error.context.get("field") == field


async def test_what_is_our_defect_is_not_dressed_up(engine: Engine, society: Society) -> None:
    assert await refusal(engine, society, "SELECT nothing FROM nowhere") is None
    assert translate(RuntimeError("x")) is None


@pytest.mark.parametrize("error", [ConnectionResetError(), TimeoutError(), asyncpg.ConnectionDoesNotExistError("gone")])
def test_a_cut_connection_may_be_tried_again(error: Exception) -> None:
    assert isinstance(translate(error), UnavailableError)
