"""What `scripts/prove` takes, and what it says with its exit code."""

import pytest

from prove import __main__ as prove
from prove.report import Options, Outcome


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["crash-points", "nonsense"],
        ["--seed", "x"],
        ["--seed", "-1"],
        ["--minutes", "0"],
        ["--nonsense"],
        ["--only", "x"],
    ],
)
def test_bad_arguments_are_one_line_and_exit_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        prove.main(arguments)
    told = capsys.readouterr()
    assert ended.value.code == 2
    assert told.err.count("\n") == 1
    assert told.err.startswith("prove: ")
    assert told.out == ""


def test_help_names_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        prove.main(["--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert all(name in told for name in prove.PARTS)


@pytest.mark.parametrize(("failures", "code"), [([], 0), (["a row was lost"], 1)])
def test_what_is_not_proven_is_told_and_exits_with_1(
    failures: list[str], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Options] = []

    async def part(options: Options) -> Outcome:
        asked.append(options)
        return Outcome("| a table |", failures)

    monkeypatch.setattr(prove, "PARTS", {"tried": (part, "for this test")})
    assert prove.main(["tried", "--seed", "7", "--long"]) == code
    told = capsys.readouterr().out
    assert asked == [Options(long=True, seed=7)]
    assert "| a table |" in told
    assert ("NOT PROVEN: a row was lost" in told) is bool(failures)
