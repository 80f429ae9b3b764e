"""Bugs are noticed and their absence is too; and a bug which no longer fits the code is no proof."""

from pathlib import Path

import pytest

from prove.planted_bugs import Edit, plant, prove
from prove.report import Options


@pytest.mark.timeout(600)
async def test_each_bug_is_noticed_and_nothing_else_is() -> None:
    outcome = await prove(Options(seed=1))
    assert outcome.failures == []


@pytest.mark.parametrize("text", ["nothing of it", "twice: the line; twice: the line"])
def test_a_bug_that_does_not_match_exactly_once_is_out_of_date(tmp_path: Path, text: str) -> None:
    (tmp_path / "code.py").write_text(text)
    with pytest.raises(ValueError, match="out of date"):
        plant(tmp_path, Edit("code.py", "the line", "another"))
    assert (tmp_path / "code.py").read_text() == text
