"""Random histories against the plain model: always the same ones here, new ones by `scripts/prove model`."""

from typing import Any
from unittest import mock

import pytest

from db.queries import sql
from prove.model import History, histories

FEW = {"examples": 12, "steps": 30}


@pytest.mark.timeout(300)
def test_histories_hold() -> None:
    histories(**FEW)


async def forget_the_cursor(connection: Any, *, tenant_id: Any, job_id: Any) -> None:
    """A retry that begins anew, over the rows that stand."""
    await connection.execute(
        "UPDATE batch_job_shards SET attempts = 0, next_attempt_at = NULL, cursor = lower, processed = 0"
        " WHERE tenant_id = $1 AND job_id = $2 AND NOT done",
        tenant_id,
        job_id,
    )


async def owing_now(connection: Any, **given: Any) -> Any:
    """Who is in the tier now, instead of who was when the cycle started."""
    return await connection.execute(
        "INSERT INTO contributions (tenant_id, cycle_id, member_id, contribution_amount, due_date)"
        " SELECT tenant_id, $2, member_id, $3, $4 FROM tier_memberships"
        " WHERE tenant_id = $1 AND tier_id = $5 AND member_id > $6 AND member_id <= $7 AND valid_to IS NULL",
        *(given[name] for name in ("tenant_id", "cycle_id", "contribution_amount", "due_date", "tier_id")),
        *(given[name] for name in ("cursor", "bound")),
    )


async def whoever_asks(connection: Any, *, tenant_id: Any, job_id: Any, shard_no: int, lease_token: Any) -> Any:
    """A shard's row for a worker that no longer has the lease."""
    return await connection.fetchrow(
        "SELECT cursor, upper, processed, attempts FROM batch_job_shards"
        " WHERE tenant_id = $1 AND job_id = $2 AND shard_no = $3 FOR UPDATE",
        tenant_id,
        job_id,
        shard_no,
    )


async def nothing(*_: Any, **__: Any) -> None:
    """What should be written is not."""


BUGS = {
    "a member who came later owes": ("insert_contributions", owing_now),
    "an answer is not kept": ("insert_idempotency_key", nothing),
    "pause leaves the leases": ("revoke_leases", nothing),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("bug", BUGS)
def test_histories_find_a_bug_that_was_planted(bug: str) -> None:
    query, instead = BUGS[bug]

    class Planted(History):
        """A machine of its own: hypothesis keeps what it knows of one."""

    with mock.patch.object(sql, query, instead), pytest.raises((AssertionError, BaseExceptionGroup)):
        histories(examples=40, steps=40, machine=Planted, shrink=False)
