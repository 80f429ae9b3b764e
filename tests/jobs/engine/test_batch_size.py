"""Batches are sized by time."""

import pytest

from core.settings import Settings
from jobs.engine.batch_size import FEWEST, FIRST, MOST, BatchSize


def sized(**settings: object) -> BatchSize:
    return BatchSize(Settings(_env_file=None, **settings))


def test_a_fixed_size_stays() -> None:
    size = sized(batch_rows=123)
    size.learn(123, 60.0)
    size.learn(123, 0.0001)
    assert size.rows == 123


@pytest.mark.parametrize("rows_a_second", [20_000, 100_000, 400_000])
def test_it_settles_where_a_batch_takes_its_time(rows_a_second: int) -> None:
    size = sized(batch_milliseconds=75)
    assert size.rows == FIRST
    for _ in range(20):
        size.learn(size.rows, size.rows / rows_a_second)
    assert size.rows == pytest.approx(rows_a_second * 0.075, rel=0.01)


def test_one_odd_batch_at_most_doubles_or_halves_it() -> None:
    size = sized()
    size.learn(size.rows, 1e-9)
    assert size.rows == 2 * FIRST
    size.learn(size.rows, 3_600.0)
    assert size.rows == FIRST


def test_it_has_bounds() -> None:
    size = sized()
    for _ in range(20):
        size.learn(size.rows, 60.0)
    assert size.rows == FEWEST
    for _ in range(20):
        size.learn(size.rows, 0.0)
    assert size.rows == MOST


def test_an_empty_batch_teaches_nothing() -> None:
    size = sized()
    size.learn(0, 0.001)
    assert size.rows == FIRST


def test_a_short_last_batch_does_not_leave_the_next_shard_with_a_tiny_one() -> None:
    size = sized()
    size.learn(3, 0.002)
    assert size.rows >= FEWEST
