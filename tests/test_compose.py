"""compose.yaml, as far as it can be checked without a container engine.

`compose-spec.json` is the compose specification's own schema (Apache-2.0, github.com/compose-spec/compose-spec).
"""

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from core.settings import Settings
from db.embedded import POSTGRES_BIN_PATH, EmbeddedPostgres

ROOT = Path(__file__).parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
APPLICATION = ("migrate", "api", "worker")


def test_it_fits_the_specification() -> None:
    schema = json.loads((Path(__file__).parent / "compose-spec.json").read_text())
    jsonschema.Draft7Validator(schema).validate(COMPOSE)


def test_every_long_running_service_has_a_healthcheck() -> None:
    assert [name for name, service in COMPOSE["services"].items() if "healthcheck" not in service] == ["migrate"]


def test_its_guthi_variables_are_settings() -> None:
    given = {name for service in APPLICATION for name in COMPOSE["services"][service]["environment"]}
    assert given <= {f"GUTHI_{name.upper()}" for name in Settings.model_fields}


def test_only_migrate_gets_the_owners_password() -> None:
    knows = [name for name in APPLICATION if "OWNER_PASSWORD" in json.dumps(COMPOSE["services"][name])]
    assert knows == ["migrate"]


def test_workers_may_finish_what_they_have_in_hand() -> None:
    grace = COMPOSE["services"]["worker"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > Settings.model_fields["stop_seconds"].default


def test_the_files_it_mounts_are_there() -> None:
    mounts = [mount.split(":")[0] for service in COMPOSE["services"].values() for mount in service.get("volumes", ())]
    assert all((ROOT / path).exists() for path in mounts if path.startswith("./"))


def test_only_who_asks_gets_what_observes() -> None:
    asked = [name for name, service in COMPOSE["services"].items() if service.get("profiles") == ["observe"]]
    assert asked == ["prometheus", "grafana"]


def test_the_image_gets_every_package() -> None:
    copied = {line.split()[-1] for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("COPY")}
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages - {"tests", "bench", "docs", "prove"} <= copied  # what only developers run


def test_the_init_script_gives_passwords_and_the_database() -> None:
    with tempfile.TemporaryDirectory(prefix="gt", dir="/tmp") as base, EmbeddedPostgres(Path(base) / "pg") as postgres:
        # As the image does it: roles.sql has run, the database belongs to the superuser.
        psql(postgres, "CREATE DATABASE fresh")
        given = {
            "POSTGRES_USER": "postgres",
            "POSTGRES_DB": "fresh",
            "OWNER_PASSWORD": "o'\"wner",
            "APP_PASSWORD": "app",
        }
        script = ROOT / "deploy" / "postgres" / "20-passwords.sh"
        subprocess.run([script], env={**environment(postgres), **given}, check=True)
        passwords = "SELECT count(*) FROM pg_authid WHERE rolname ~ '^guthi_' AND rolpassword LIKE 'SCRAM%'"
        assert psql(postgres, passwords) == "2"
        assert psql(postgres, "SELECT datdba::regrole FROM pg_database WHERE datname = 'fresh'") == "guthi_owner"


def environment(postgres: EmbeddedPostgres) -> dict[str, str]:
    socket_dir = postgres.superuser_url.partition("host=")[2]
    return {**os.environ, "PGHOST": socket_dir, "PATH": f"{POSTGRES_BIN_PATH}:{os.environ['PATH']}"}


def psql(postgres: EmbeddedPostgres, query: str) -> str:
    command = ["psql", "-XqAt", "-U", "postgres", "-c", query]
    return subprocess.run(command, env=environment(postgres), check=True, capture_output=True, text=True).stdout.strip()
