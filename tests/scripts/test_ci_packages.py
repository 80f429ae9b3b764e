"""What continuous integration gets by apt: only what is missing, in several tries, with no service started."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support import ROOT

APT = """#!/bin/sh
echo "$*" >>"$LOG"
cat "$POLICY_RC_D" >>"$LOG.policy"
test "$(wc -l <"$LOG")" -gt "${FAILS:-0}"
"""


class Machine:
    """Programs that stand in for the real ones: apt-get writes down how it is called."""

    def __init__(self, directory: Path) -> None:
        self.bin, self.log, self.policy = directory / "bin", directory / "log", directory / "policy-rc.d"
        self.bin.mkdir()
        for tool in ("bash", "cat", "wc", "mktemp", "rm", "mv", "chmod", "sleep"):
            (self.bin / tool).symlink_to(f"/usr/bin/{tool}" if Path(f"/usr/bin/{tool}").exists() else f"/bin/{tool}")
        self.has("id", "#!/bin/sh\necho 0\n")
        self.has("apt-get", APT)

    def has(self, program: str, text: str = "#!/bin/sh\n") -> None:
        (self.bin / program).write_text(text)
        (self.bin / program).chmod(0o755)

    def run(self, **environment: str) -> subprocess.CompletedProcess[str]:
        given = {"PATH": str(self.bin), "LOG": str(self.log), "POLICY_RC_D": str(self.policy), "PAUSES": "0 0 0"}
        command = ["/bin/bash", str(ROOT / "scripts/ci-packages")]
        return subprocess.run(command, env={**given, **environment}, capture_output=True, text=True)

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_nothing_is_asked_for_where_all_is_there(machine: Machine) -> None:
    for program in ("chromium", "prometheus", "promtool"):
        machine.has(program)
    assert machine.run().returncode == 0
    assert machine.calls == []


def test_only_what_is_missing_is_installed_and_no_service_starts(machine: Machine) -> None:
    machine.has("chromium")
    assert machine.run().returncode == 0
    update, install = machine.calls
    assert update.endswith(" update") and "Acquire::Retries=3" in update
    assert install.endswith(" install --yes --no-install-recommends prometheus")
    assert Path(f"{machine.log}.policy").read_text() == "#!/bin/sh\nexit 101\n" * 2
    assert not machine.policy.exists()


def test_a_policy_that_was_there_is_there_again(machine: Machine) -> None:
    machine.policy.write_text("as it was")
    assert machine.run(FAILS="100").returncode == 1
    assert machine.policy.read_text() == "as it was"


@pytest.mark.parametrize("fails", [1, 2])
def test_it_tries_again(machine: Machine, fails: int) -> None:
    assert machine.run(FAILS=str(fails)).returncode == 0
    assert machine.calls[-1].endswith("chromium prometheus")


def test_what_cannot_be_had_is_said_aloud(machine: Machine) -> None:
    done = machine.run(FAILS="100")
    assert done.returncode == 1 and "WITHOUT chromium prometheus" in done.stderr
    machine.has("id", "#!/bin/sh\necho 1000\n")
    done = machine.run()
    assert done.returncode == 1 and "apt needs root" in done.stderr
    (machine.bin / "apt-get").unlink()
    assert "there is no apt-get" in machine.run().stderr


def test_continuous_integration_goes_on_without() -> None:
    script = (ROOT / ".ci/run").read_text()
    assert "scripts/ci-packages ||" in script and os.access(ROOT / "scripts/ci-packages", os.X_OK)
