"""Histories against the plain model: some drawn ones, and those kept because a planted bug is seen by them."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest

import prove.model
from db.queries import sql
from prove.model import Ground, History, histories


@pytest.mark.timeout(400)
def test_drawn_histories_hold() -> None:
    """Always the same ones, so that the suite never fails by luck: `scripts/prove model` draws new ones."""
    histories(examples=6, steps=30)


@pytest.fixture(scope="module")
def ground() -> Iterator[None]:
    """For the kept ones; the drawn ones come before them, as there is one seam a process and they bring their own."""
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        try:
            History.ground = runner.run(stack.enter_async_context(Ground.open(runner)))
            yield
        finally:
            runner.run(stack.aclose())


class Kept(History):
    """A history that is written down, held against the model after each step as drawn ones are."""

    def __call__(self, step: str, *arguments: Any, **named: Any) -> None:
        getattr(self, step)(*arguments, **named)
        self.holds()


def a_member_leaves_and_another_comes_while_the_job_waits(history: Kept) -> None:
    history("member", which=9, does="leave")
    history("begin", dead=0)
    history("member", which=5, does="leave")
    history("member", which=9, does="return")
    history("answer_a_ring", first="", steps=5)


def a_start_is_asked_for_again(history: Kept) -> None:
    history("begin", dead=0)
    history("start_while_the_api_dies", key=1, dead=1, strategy="inline", calls=1_000, after=True)
    for key in (0, 1):
        history("start", key=key, dead=key, strategy=("queued", "inline")[key])


def a_pause_comes_between_two_batches(history: Kept) -> None:
    history("begin", dead=0)
    history("answer_a_ring", first="", steps=3)
    history("steer", which=0, verb="pause")
    history("work", which=0, steps=3)
    history("steer", which=0, verb="resume")


def a_worker_wakes_when_another_has_its_shard(history: Kept) -> None:
    history("begin", dead=0)
    history("answer_a_ring", first="", steps=3)
    history("answer_a_ring", first="jump and sweep", steps=1)
    history("work", which=0, steps=1)
    history("work", which=0, steps=3)


def two_workers_die_and_an_officer_retries(history: Kept) -> None:
    history("begin", dead=0)
    history("answer_a_ring", first="", steps=4)
    history("kill", which=0, calls=None, after=False)
    history("answer_a_ring", first="jump and sweep", steps=1)
    history("kill", which=0, calls=None, after=False)
    history("answer_a_ring", first="jump and sweep", steps=1)
    assert history.model.cycles[0].job.state == "Failed"
    history("steer", which=0, verb="retry")


def redis_forgets_a_ring(history: Kept) -> None:
    history("begin", dead=0)
    history("all_of_them", what="Redis is flushed")
    history("answer_a_ring", first="sweep", steps=1)


def a_worker_dies_at_every_call_in_turn(history: Kept) -> None:
    history("begin", dead=0)
    for calls in range(12):
        history("answer_a_ring", first="jump and sweep", steps=0)
        if history.workers:
            history("kill", which=0, calls=calls, after=bool(calls % 2))


KEPT = (
    a_member_leaves_and_another_comes_while_the_job_waits,
    a_start_is_asked_for_again,
    a_pause_comes_between_two_batches,
    a_worker_wakes_when_another_has_its_shard,
    two_workers_die_and_an_officer_retries,
    redis_forgets_a_ring,
    a_worker_dies_at_every_call_in_turn,
)


def run(history: Any) -> None:
    kept = Kept()
    try:
        history(kept)
    except BaseException:
        kept.do(kept._close())
        raise
    kept.teardown()


@pytest.mark.usefixtures("ground")
@pytest.mark.parametrize("history", KEPT)
def test_a_history_that_was_kept_holds(history: Any) -> None:
    run(history)


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
        " WHERE tenant_id = $1 AND tier_id = $5 AND member_id > $6::uuid AND member_id <= $7::uuid"
        " AND valid_to IS NULL",
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
    """What should be done is not."""


@pytest.mark.usefixtures("ground")
@pytest.mark.parametrize(
    ("history", "where", "query", "instead"),
    [
        (a_member_leaves_and_another_comes_while_the_job_waits, sql, "insert_contributions", owing_now),
        (a_start_is_asked_for_again, sql, "insert_idempotency_key", nothing),
        (a_pause_comes_between_two_batches, sql, "revoke_leases", nothing),
        (a_worker_wakes_when_another_has_its_shard, sql, "lock_shard", whoever_asks),
        (two_workers_die_and_an_officer_retries, sql, "forgive_attempts", forget_the_cursor),
        (redis_forgets_a_ring, prove.model, "sweep", nothing),
    ],
)
def test_a_planted_bug_is_seen(history: Any, where: Any, query: str, instead: Any) -> None:
    with mock.patch.object(where, query, instead), pytest.raises(AssertionError):
        run(history)
