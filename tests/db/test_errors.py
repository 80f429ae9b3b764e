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
    ("statement", "kind", "context"),
    [
        (
            "INSERT INTO agents (tenant_id, code, name) VALUES (:tenant, 'AG1', 'x')",
            DuplicateResourceError,
            {"field": "code"},
        ),
        ("UPDATE members SET agent_id = uuidv7()", InvalidInputError, {"field": "agentId"}),
        ("UPDATE members SET gender = 'X'", InvalidInputError, {"field": "gender"}),
        ("UPDATE tiers SET benefit_amount = -1", InvalidInputError, {"field": "benefitAmount"}),
        ("UPDATE members SET full_name = NULL", InvalidInputError, {"field": "fullName"}),
        ("SELECT CAST('x' AS uuid)", InvalidInputError, {"value": "x"}),
        ("UPDATE tiers SET contribution_amount = 1e20", InvalidInputError, {}),
        ("SET LOCAL statement_timeout = 1; SELECT pg_sleep(1)", UnavailableError, {}),
    ],
)
async def test_what_a_caller_can_mend_is_said(
    engine: Engine, society: Society, statement: str, kind: type[GuthiError], context: dict[str, str]
) -> None:
    error = await refusal(engine, society, statement)
    assert type(error) is kind
    assert error.context == context


async def test_of_two_serializable_transactions_one_may_be_tried_again(engine: Engine, society: Society) -> None:
    """And of two that wait for each other: the state of both is 40xxx."""
    with pytest.raises(asyncpg.PostgresError) as caught:
        async with engine.database.connection() as one, engine.database.connection() as other:
            for each in (one, other):
                await each.execute(f"BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT set_tenant('{society.tenant_id}')")
                await each.fetchval("SELECT count(*) FROM agents")
            try:
                for number, each in enumerate((one, other)):
                    code = f"S{number}"
                    await each.execute(
                        "INSERT INTO agents (tenant_id, code, name) VALUES ($1, $2, 'x')", society.tenant_id, code
                    )
                for each in (one, other):
                    await each.execute("COMMIT")
            finally:
                for each in (one, other):
                    await each.execute("ROLLBACK")
    assert isinstance(translate(caught.value), UnavailableError)


async def test_what_is_our_defect_is_not_dressed_up(engine: Engine, society: Society) -> None:
    assert await refusal(engine, society, "SELECT nothing FROM nowhere") is None
    assert translate(RuntimeError("x")) is None


@pytest.mark.parametrize("error", [ConnectionResetError(), TimeoutError(), asyncpg.ConnectionDoesNotExistError("gone")])
def test_a_cut_connection_may_be_tried_again(error: Exception) -> None:
    assert isinstance(translate(error), UnavailableError)
