"""Every state map against the code that asks it and the database that guards it: no other arrow can be followed."""

from collections.abc import AsyncIterator
from itertools import product
from typing import get_args
from uuid import UUID, uuid4

import asyncpg
import pytest

from api import fields
from core.errors import InvalidStatusTransitionError
from core.settings import Settings
from db.errors import translate
from domain.states import check_arrow
from jobs.engine.engine import Engine
from jobs.engine.model import JobState, check_transition
from jobs.state_maps import STATE_MAPS, StateMap, document
from tests.cycles import start
from tests.support import ROOT, Society, unguarded

# Every state of a member, with what must stand beside it.
MEMBER_IN = """
UPDATE members SET status = $1, status_reason = 'x',
    member_number = CASE WHEN $1 NOT IN ('Pending', 'UnderReview', 'Rejected') THEN 'N-1' END,
    joined_on = CASE WHEN $1 NOT IN ('Pending', 'UnderReview', 'Rejected') THEN current_date END
WHERE member_id = $2
"""
BEGIN = {
    "member": "INSERT INTO members"
    " (tenant_id, full_name, gender, tier_id, status, status_reason, member_number, joined_on)"
    " VALUES ($1, 'x', 'F', $2, $3, 'x', CASE WHEN $3 NOT IN ('Pending', 'UnderReview', 'Rejected') THEN 'N-2' END,"
    " CASE WHEN $3 NOT IN ('Pending', 'UnderReview', 'Rejected') THEN current_date END)",
    "cycle": "INSERT INTO contribution_cycles (tenant_id, tier_id, cycle_status, cycle_code, deceased_member_id,"
    " contribution_amount, benefit_amount, as_of, start_date, deadline, created_by)"
    " SELECT $1, $2, $3, 'X', deceased_member_id, 1, 1, as_of, start_date, deadline, created_by"
    " FROM contribution_cycles LIMIT 1",
    "contribution": "INSERT INTO contributions (tenant_id, cycle_id, member_id, contribution_amount, due_date,"
    " contribution_status) SELECT $1, uuidv7(), $2, 1, current_date, $3",
    "job": "INSERT INTO batch_jobs (tenant_id, subject_id, kind, state) VALUES ($1, $2, 'x', $3)",
}


@pytest.fixture
async def rows(engine: Engine, owner: asyncpg.Connection, society: Society) -> dict[str, tuple[str, UUID]]:
    """By map, a row that may be put into any state: its key's column and value."""
    cycle_id = await start(engine, society)
    contribution = "INSERT INTO contributions (tenant_id, cycle_id, member_id, contribution_amount, due_date)"
    alone = uuid4()
    await owner.execute(contribution + " VALUES ($1, $2, $3, 1, current_date)", society.tenant_id, cycle_id, alone)
    return {
        "member": ("member_id", society.dead),
        "cycle": ("cycle_id", cycle_id),
        "contribution": ("member_id", alone),
        "job": ("subject_id", cycle_id),
    }


@pytest.fixture
async def app_role(settings: Settings, society: Society) -> AsyncIterator[asyncpg.Connection]:
    """What the API and the workers are, inside a transaction of the tenant."""
    connection = await asyncpg.connect(settings.database_url)
    await connection.execute(f"BEGIN; SELECT set_tenant('{society.tenant_id}')")
    yield connection
    await connection.close()


def every_pair(state_map: StateMap) -> list[tuple[str, str]]:
    return [pair for pair in product(state_map.states, repeat=2) if pair[0] != pair[1]]


@pytest.mark.parametrize("name", STATE_MAPS)
def test_the_code_follows_the_arrows_of_the_map_and_no_other(name: str) -> None:
    state_map = STATE_MAPS[name]
    for current, wanted in product(state_map.states, repeat=2):
        if (current, wanted) in state_map.arrows:
            check_arrow(name, state_map.arrows, current, wanted)
            continue
        with pytest.raises(InvalidStatusTransitionError) as refused:
            check_arrow(name, state_map.arrows, current, wanted)
        assert refused.value.context == {"current": current, "wanted": wanted}
        if name == "job":
            with pytest.raises(InvalidStatusTransitionError):
                check_transition(JobState(current), JobState(wanted))


async def test_the_database_has_the_same_arrows_for_the_same_reasons(owner: asyncpg.Connection) -> None:
    rows = await owner.fetch("SELECT machine, from_state, to_state, reason FROM state_transitions")
    assert {tuple(row) for row in rows} == {
        (name, *arrow, reason) for name, state_map in STATE_MAPS.items() for arrow, reason in state_map.arrows.items()
    }


@pytest.mark.parametrize("name", STATE_MAPS)
async def test_the_database_follows_the_arrows_of_the_map_and_no_other(
    owner: asyncpg.Connection, app_role: asyncpg.Connection, rows: dict[str, tuple[str, UUID]], name: str
) -> None:
    state_map, (key, value) = STATE_MAPS[name], rows[name]
    table, column = state_map.table, state_map.column
    update = f"UPDATE {table} SET {column} = $1 WHERE {key} = $2"
    to = MEMBER_IN if name == "member" else update
    await app_role.execute("ROLLBACK")
    tenant_id = await owner.fetchval(f"SELECT tenant_id FROM {table} WHERE {key} = $1", value)
    for current, wanted in every_pair(state_map):
        async with unguarded(owner, table):
            await owner.execute(to, current, value)
        await app_role.execute(f"BEGIN; SELECT set_tenant('{tenant_id}')")
        if (current, wanted) in state_map.arrows:
            assert await app_role.execute(to, wanted, value) == "UPDATE 1"
        else:
            with pytest.raises(asyncpg.CheckViolationError) as refused:
                await app_role.execute(to, wanted, value)
            known = translate(refused.value)
            assert isinstance(known, InvalidStatusTransitionError)
            assert str(known) == f"a {name} that is {current} cannot become {wanted}"
            assert known.context == {"current": current, "wanted": wanted}
        await app_role.execute("ROLLBACK")


async def test_the_owner_is_held_to_the_maps_too(owner: asyncpg.Connection, society: Society) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match="a member that is Deceased cannot become Active"):
        await owner.execute("UPDATE members SET status = 'Active' WHERE member_id = $1", society.dead)


async def test_a_row_that_stays_in_its_state_is_not_asked(
    owner: asyncpg.Connection, rows: dict[str, tuple[str, UUID]]
) -> None:
    for name, state_map in STATE_MAPS.items():
        key, value = rows[name]
        column = state_map.column
        done = await owner.execute(f"UPDATE {state_map.table} SET {column} = {column} WHERE {key} = $1", value)
        assert done == "UPDATE 1", name


@pytest.mark.parametrize("name", STATE_MAPS)
async def test_a_row_begins_where_the_map_does(
    owner: asyncpg.Connection,
    app_role: asyncpg.Connection,
    rows: dict[str, tuple[str, UUID]],
    society: Society,
    name: str,
) -> None:
    for state in STATE_MAPS[name].states:
        await app_role.execute("SAVEPOINT here")
        try:
            await app_role.execute(BEGIN[name], society.tenant_id, society.tier_id, state)
            began = True
        except asyncpg.CheckViolationError as error:
            assert str(error) == f"a {name} cannot begin as {state}"
            began = False
        except asyncpg.InsufficientPrivilegeError:
            assert name == "contribution"  # the app may not name its status at all, as a trigger would cost time
            began = state in STATE_MAPS[name].begins
        assert began == (state in STATE_MAPS[name].begins), state
        await app_role.execute("ROLLBACK TO here")
    if name == "contribution":
        default = "SELECT column_default FROM information_schema.columns WHERE table_name = 'contributions'"
        assert await owner.fetchval(f"{default} AND column_name = 'contribution_status'") == "'Pending'::text"


async def test_the_app_cannot_draw_arrows(app_role: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app_role.execute("INSERT INTO state_transitions VALUES ('member', 'Deceased', 'Active', 'a miracle')")


async def test_every_partition_of_contributions_is_guarded(owner: asyncpg.Connection) -> None:
    await owner.execute("SELECT make_partitions(12)")
    bare = await owner.fetch(
        "SELECT inhrelid::regclass FROM pg_inherits AS i WHERE inhparent = 'contributions'::regclass"
        " AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = inhrelid AND tgname = 'check_transition')"
    )
    assert bare == []


async def test_making_contributions_costs_no_trigger(owner: asyncpg.Connection) -> None:
    # Bit 2 of tgtype: the trigger fires on INSERT.
    on_insert = await owner.fetch(
        "SELECT tgname FROM pg_trigger WHERE tgrelid::regclass::text LIKE 'contributions%' AND tgtype & 4 <> 0"
    )
    assert on_insert == []


def test_the_api_knows_the_states_of_the_maps() -> None:
    assert set(get_args(fields.MemberStatus)) == set(STATE_MAPS["member"].states)
    assert set(get_args(fields.CycleStatus)) == set(STATE_MAPS["cycle"].states)
    assert {str(state) for state in JobState} == set(STATE_MAPS["job"].states)


def test_the_drawing_in_the_docs_is_of_these_maps() -> None:
    said = (ROOT / "docs" / "states.md").read_text()
    assert said == document(), "run: python -m jobs.state_maps >docs/states.md"
