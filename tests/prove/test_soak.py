"""A short soak: that nothing is lost, doubled or leaked, and that the reckoning would have seen it."""

import pytest

from prove.report import Options
from prove.soak import prove


@pytest.mark.timeout(300)
async def test_a_quarter_of_a_minute_of_everything_breaking() -> None:
    outcome = await prove(Options(seed=1))
    assert outcome.failures == []
    assert "cycles Active" in outcome.report
