"""The bench runs: at sizes that say nothing, and without the peers that need packages of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.report import MARK, write_below
from tests.support import ROOT


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(command, cwd=ROOT, env={**os.environ}, capture_output=True, text=True, timeout=220)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("names", [("create-5000", "floor"), ("crash",)])
def test_quick_runs_and_reports_each_part(tmp_path: Path, names: tuple[str, ...]) -> None:
    done = bench(*names, "--quick", "--results", str(tmp_path))
    assert done.returncode in (0, 1), done.stderr  # 1: a goal was missed, as it may be at such a size
    parts = json.loads((tmp_path / "results.json").read_text())
    assert list(parts) == list(names)
    for name in names:
        assert parts[name]["tables"], name
        assert f"### {name}" in done.stdout
        for table in parts[name]["tables"]:
            assert all(len(row) == len(table["columns"]) for row in table["rows"]), table["title"]
    assert "| this system |" in done.stdout


def test_what_was_printed_before_gives_way_and_what_people_wrote_stays(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"# Performance\n\nSo fast.\n\n{MARK}\nolder\n")
    write_below(page, "newer\n")
    assert page.read_text() == f"# Performance\n\nSo fast.\n\n{MARK}\nnewer\n"


def test_a_page_without_the_mark_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text("# Performance\n")
    with pytest.raises(ValueError, match="has no line"):
        write_below(page, "newer\n")
    assert page.read_text() == "# Performance\n"


def test_an_unknown_part_is_refused() -> None:
    done = bench("speed")
    assert done.returncode == 2
    assert "there is no speed" in done.stderr
