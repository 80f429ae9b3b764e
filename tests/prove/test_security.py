"""The matrix of tenants, roles, tables and verbs, hostile words in every place; and that both see what is open."""

import random
from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest

from core.settings import Settings
from prove.report import Options
from prove.security import prove
from prove.security_calls import Attacker
from prove.security_tables import Tables
from tests.api.conftest import other  # noqa: F401  # a fixture
from tests.support import Society


@pytest.mark.timeout(300)
async def test_nobody_reaches_anothers_things_and_no_word_is_more_than_a_word() -> None:
    outcome = await prove(Options(seed=1))
    assert outcome.failures == []


@pytest.fixture
async def app_role(settings: Settings) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(settings.database_url)
    yield connection
    await connection.close()


@pytest.mark.parametrize(
    ("opened", "seen"),
    [
        ("ALTER TABLE agents DISABLE ROW LEVEL SECURITY", "another tenant reaches 2 rows by SELECT on agents"),
        ("ALTER TABLE agents NO FORCE ROW LEVEL SECURITY", "agents does not force row-level security"),
        ("CREATE POLICY all_of_it ON agents USING (true)", "nobody reaches 2 rows by UPDATE on agents"),
        ("GRANT TRUNCATE ON agents TO guthi_app", "guthi_app has ['TRUNCATE'] on agents"),
        ("GRANT SELECT ON contributions_default TO guthi_app", "guthi_app reaches the partition contributions_default"),
        ("CREATE TABLE free (note text)", "free has no tenant_id"),
        ("ALTER VIEW cycles_with_jobs RESET (security_invoker)", "the view cycles_with_jobs is not read as its reader"),
        ("ALTER FUNCTION tenant_ids RESET search_path", "tenant_ids runs as the owner without a fixed search_path"),
        ("GRANT EXECUTE ON FUNCTION tenant_ids TO public", "tenant_ids runs as the owner for everybody"),
        (
            "CREATE FUNCTION names() RETURNS SETOF text LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp"
            " AS 'SELECT full_name FROM members'",
            "names crosses tenants and returns names text",
        ),
    ],
)
async def test_the_matrix_sees_what_is_open(
    owner: asyncpg.Connection,
    app_role: asyncpg.Connection,
    society: Society,
    other: Society,  # noqa: F811
    opened: str,
    seen: str,
) -> None:
    await owner.execute(opened)
    tables = Tables(owner, app_role, other.tenant_id, society.tenant_id)
    await tables.try_all()
    assert any(wrong.startswith(seen) for wrong in tables.wrong), tables.wrong


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        (httpx.Response(500), "500"),
        (httpx.Response(200, headers={"X-Injected": "1"}), "split the headers"),
        (httpx.Response(200, headers={"Content-Type": "text/html"}), "a page"),
    ],
    ids=str,
)
async def test_an_answer_that_must_not_be_is_seen(answer: httpx.Response, seen: str) -> None:
    document = {"paths": {"/x": {"get": {}}}}
    transport = httpx.MockTransport(lambda _: answer)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        attacker = Attacker(client, {})
        await attacker.try_words(document, random.Random(1), 1)
    assert attacker.wrong != []
    assert all(seen in wrong for wrong in attacker.wrong)
