"""Every call from the POST to `Active` is broken in some way, and a sample of all that can break elsewhere."""

import pytest

from prove.crash_points import prove
from prove.report import Options


@pytest.mark.timeout(600)
async def test_whatever_call_breaks_the_system_recovers_by_itself() -> None:
    outcome = await prove(Options(seed=1))
    assert outcome.failures == []
