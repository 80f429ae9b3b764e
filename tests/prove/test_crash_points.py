"""The short form of `scripts/prove crash-points`."""

import pytest

from prove import crash_points
from prove.report import Options


@pytest.mark.timeout(900)
async def test_whatever_call_breaks_the_system_recovers_by_itself() -> None:
    options = Options(seed=1)  # another one at each `scripts/prove`; here a failure is to be the code's, not the draw's
    outcome = await crash_points.prove(options)
    assert list(outcome.failures) == [], f"scripts/prove crash-points --seed {options.seed}\n{outcome.report}"
