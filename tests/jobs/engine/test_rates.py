"""Samples of a shard's progress: kept with its batches, and drawn as one line."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import asyncpg
import pytest

from jobs.engine import runner
from jobs.engine.engine import Engine
from jobs.engine.rates import MOST_POINTS, SHORTEST_GAP, rate_points
from jobs.engine.runner import run_job
from tests.cycles import job_of, start, tuned
from tests.support import Society

START = datetime(2026, 1, 1, tzinfo=UTC)


def sample(seconds: float, shard_no: int, processed: int) -> dict[str, Any]:
    return {"at": START + timedelta(seconds=seconds), "shard_no": shard_no, "processed": processed}


def test_two_shards_make_one_steady_line() -> None:
    """A thousand a second each, in turn: two thousand a second at every point, whichever shard was seen last."""
    both = [sample(0.5 + n / 4, n % 2, 500 + 1_000 * (n // 2) // 2) for n in range(40)]
    points = rate_points(both, START)
    assert points[-1].processed == 2 * 10_000 and points[-1].at == both[-1]["at"]
    assert all(later.at - sooner.at >= SHORTEST_GAP for sooner, later in pairwise(points))
    assert {point.rows_per_second for point in points[1:]} == {2_000.0}


def test_a_long_run_is_thinned_evenly() -> None:
    points = rate_points([sample(n / 2, 0, n * 50) for n in range(1, 7_201)], START)
    assert 190 <= len(points) <= MOST_POINTS
    gaps = {later.at - sooner.at for sooner, later in pairwise(points)}
    assert max(gaps) - min(gaps) <= SHORTEST_GAP
    assert {point.rows_per_second for point in points} == {100.0}


def test_a_pause_shows_as_a_slow_stretch() -> None:
    points = rate_points([sample(1, 0, 100), sample(2, 0, 200), sample(12, 0, 300)], START)
    assert [(point.processed, point.rows_per_second) for point in points] == [(100, 100), (200, 100), (300, 10)]


@pytest.mark.parametrize("started_at", [None, START])
def test_few_samples(started_at: datetime | None) -> None:
    assert rate_points([], started_at) == []
    (point,) = rate_points([sample(0, 0, 5)], started_at)
    assert (point.at, point.processed) == (START, 5)


async def samples_of(owner: asyncpg.Connection, job_id: Any) -> list[asyncpg.Record]:
    rows: list[asyncpg.Record] = await owner.fetch(
        "SELECT * FROM batch_job_samples WHERE job_id = $1 ORDER BY at", job_id
    )
    return rows


async def test_only_what_is_due_is_kept_and_the_last_batch_always(
    engine: Engine, society: Society, owner: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for gap, wanted in ((3_600.0, [100]), (0.0, list(range(10, 101, 10)))):
        monkeypatch.setattr(runner, "SAMPLE_SECONDS", gap)
        job = await job_of(owner, await start(engine, society))
        await run_job(tuned(engine, batch_rows=10), society.tenant_id, job["job_id"])
        assert [row["processed"] for row in await samples_of(owner, job["job_id"])] == wanted


async def test_a_batch_that_is_rolled_back_leaves_no_sample(
    engine: Engine, society: Society, owner: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "SAMPLE_SECONDS", 0.0)
    job = await job_of(owner, await start(engine, society))
    broken = tuned(engine, batch_rows=10, faults="before_commit=error@4")
    await run_job(broken, society.tenant_id, job["job_id"])
    assert [row["processed"] for row in await samples_of(owner, job["job_id"])] == [10, 20, 30]
