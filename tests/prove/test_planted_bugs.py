"""The short form of `scripts/prove planted-bugs`; and that a bug which no longer fits the code is no proof."""

from pathlib import Path

import pytest

from prove import planted_bugs
from prove.planted_bugs import Edit, plant
from prove.report import Options


@pytest.mark.timeout(900)
async def test_the_crash_points_notice_what_is_planted_and_nothing_where_nothing_is() -> None:
    options = Options(seed=1)  # another one at each `scripts/prove`; here a failure is to be the code's, not the draw's
    outcome = await planted_bugs.prove(options)
    assert list(outcome.failures) == [], f"scripts/prove planted-bugs --seed {options.seed}\n{outcome.report}"


@pytest.mark.parametrize("text", ["nothing of it", "twice: the line; twice: the line"])
def test_a_bug_that_does_not_match_exactly_once_is_out_of_date(tmp_path: Path, text: str) -> None:
    (tmp_path / "code.py").write_text(text)
    with pytest.raises(ValueError, match="out of date"):
        plant(tmp_path, Edit("code.py", "the line", "another"))
    assert (tmp_path / "code.py").read_text() == text
