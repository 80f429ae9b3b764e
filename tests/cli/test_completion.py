"""The tab key: what is offered, and that nothing is ever said or waited for."""

import socket
import subprocess
import sys
from collections.abc import Mapping

import pytest

from cli import completion
from tests.cli.test_cycles import started
from tests.shell import Shell
from tests.support import ROOT, clean_environment


def offered(line: str, variables: Mapping[str, str], shell: str = "bash") -> list[str]:
    """What `line` and the tab key bring, given that nothing is said."""
    clean = clean_environment()
    words = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" ")), "_TYPER_COMPLETE_ARGS": line}
    done = subprocess.run(
        [sys.executable, "-m", "cli.main"],
        cwd=ROOT,
        env={**clean, **variables, **words, "_GUTHI_COMPLETE": f"complete_{shell}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stderr, "Traceback" in done.stdout) == ("", False)
    return done.stdout.split()


async def test_codes_and_ids_come_from_the_api(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completion, "ANSWER_SECONDS", 30)
    for name, value in shell.variables.items():
        monkeypatch.setenv(name, value)
    cycle = await started(shell)
    assert completion.cycle_codes("C") == [(cycle["cycleCode"], "Initializing")]
    assert completion.cycle_codes("X") == []
    assert completion.jobs_that(unfinished=True)("") == [(cycle["jobId"], f"{cycle['cycleCode']} Queued 0%")]
    assert completion.jobs_that(state="Failed")("") == []
    assert completion.tier_codes("") == [("A", "Tier A")]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("guthi jobs list --state P", ["Processing", "Paused"]),
        ("guthi cycles list --status A", ["Active"]),
        ("guthi maintenance run swe", ["sweep"]),
        ("guthi jobs list --kind im", ["import_members"]),
        ("guthi cyc", ["cycles"]),
    ],
)
def test_fixed_words_need_no_api(line: str, words: list[str]) -> None:
    assert offered(line, {}) == words


def test_an_api_that_is_silent_or_wrong_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert offered("guthi cycles show ", {"GUTHI_API_URL": url, "GUTHI_API_KEY": "k"}) == []
        monkeypatch.setenv("GUTHI_API_URL", url)
        monkeypatch.setenv("GUTHI_API_KEY", "k")
        assert completion.cycle_codes("") == []
    for wrong in ({"GUTHI_API_URL": "http://127.0.0.1:1"}, {"GUTHI_API_URL": "x"}, {"GUTHI_BATCH_ROWS": "many"}):
        assert offered("guthi jobs show '", {"GUTHI_API_KEY": "k", **wrong}) == []
