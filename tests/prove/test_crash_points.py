"""The short form of `scripts/prove crash-points`, with a seed of its own each time: a failure names what to repeat."""

import random

import pytest

from prove import crash_points
from prove.report import Options


@pytest.mark.timeout(900)
async def test_whatever_call_breaks_the_system_recovers_by_itself() -> None:
    options = Options(seed=random.randrange(10**6))
    outcome = await crash_points.prove(options)
    assert list(outcome.failures) == [], f"scripts/prove crash-points --seed {options.seed}\n{outcome.report}"
