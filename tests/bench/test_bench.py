"""The bench runs: at sizes that say nothing, and without the peers that need packages of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
    report = (tmp_path / "results.md").read_text()
    for name in names:
        assert parts[name]["tables"], name
        assert f"## {name}" in report
        for table in parts[name]["tables"]:
            assert all(len(row) == len(table["columns"]) for row in table["rows"]), table["title"]
    assert "| this system |" in report


def test_an_unknown_part_is_refused() -> None:
    done = bench("speed")
    assert done.returncode == 2
    assert "there is no speed" in done.stderr
