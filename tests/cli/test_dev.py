"""`guthi dev` as a user runs it: a real process with real servers, driven by its output, `dev.json` and signals."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from cli.dev_record import DevRecord, stop_leftovers
from db.embedded import free_port, postmaster_pid

LISTS = ("tiers", "agents", "contribution-cycles")
ROOT = Path(__file__).parents[2]


class Dev:
    """One run of it. `until` reads its output up to a line that is waited for."""

    def __init__(self, directory: Path, *options: str, port: int | None = None) -> None:
        self.directory = directory
        self.port = port or free_port()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "dev", "--data-dir", directory, "--port", str(self.port), *options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def until(self, pattern: str) -> re.Match[str]:
        assert self.process.stdout is not None
        seen = []
        for line in self.process.stdout:
            seen.append(line)
            if found := re.search(pattern, line):
                return found
        pytest.fail(f"no line with {pattern!r} in:\n{''.join(seen)}")

    def ready(self) -> "Dev":
        self.until(rf"^ready http://127\.0\.0\.1:{self.port}$")
        return self

    @property
    def record(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.directory / "dev.json").read_text())
        return content

    def everyone(self) -> list[psutil.Process]:
        pids = self.record["pids"]
        return [psutil.Process(pid) for pid in (pids["api"], *pids["workers"], pids["postgres"], pids["valkey"])]

    def api(self) -> httpx.Client:
        return httpx.Client(
            base_url=self.record["api_url"], headers={"Authorization": f"Bearer {self.record['api_key']}"}
        )

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        self.process.communicate(timeout=60)
        return self.process.returncode


def alive(processes: list[psutil.Process]) -> list[int]:
    """The pids of those that still run; one that ended but that nobody has asked about yet does not."""
    return [each.pid for each in processes if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path: a socket's is limited."""
    base = Path(tempfile.mkdtemp(prefix="gt", dir="/tmp"))
    yield base / "d"
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture
def run(directory: Path) -> Iterator[Callable[..., Dev]]:
    """`run(*options)` starts one on `directory`; whatever a failed test left of it is ended afterwards."""
    runs: list[Dev] = []

    def start(*options: str, port: int | None = None) -> Dev:
        runs.append(Dev(directory, *options, port=port))
        return runs[-1]

    yield start
    for each in runs:
        if each.process.poll() is None:
            each.stop()
        each.process.wait()
    record = DevRecord.load(directory)
    stop_leftovers(record, directory / "valkey")
    if pid := postmaster_pid(directory / "postgres"):
        os.kill(pid, signal.SIGQUIT)


def test_dev_json_is_complete_private_and_true(run: Callable[..., Dev]) -> None:
    dev = run("--empty", "--workers", "3").ready()
    record = dev.record
    assert set(record) == {
        *("api_url", "database_url", "admin_database_url", "redis_url", "tenant_id", "api_key", "pids"),
    }
    assert all(record.values())
    assert len(record["pids"]["workers"]) == 3
    assert (dev.directory / "dev.json").stat().st_mode & 0o777 == 0o600
    assert len(alive(dev.everyone())) == 6
    with dev.api() as api:
        assert api.get("/api/tiers").status_code == 200
        assert api.get("/api/members").json()["items"] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything_it_started(run: Callable[..., Dev], number: int) -> None:
    dev = run("--empty").ready()
    everyone = dev.everyone()
    assert dev.stop(number) == 0
    assert not alive(everyone)
    assert dev.record["pids"] == {"api": None, "workers": [], "postgres": None, "valkey": None}


def test_data_tenant_and_key_last_across_restarts(run: Callable[..., Dev]) -> None:
    tier = {"code": "A", "name": "Tier A", "contributionAmount": "100.00", "benefitAmount": "500000.00"}
    first = run("--empty").ready()
    before = first.record
    with first.api() as api:
        assert api.post("/api/tiers", json=tier).status_code == 201
    assert first.stop() == 0
    second = run("--empty").ready()
    assert {name: second.record[name] for name in ("tenant_id", "api_key")} == {
        name: before[name] for name in ("tenant_id", "api_key")
    }
    with second.api() as api:
        assert [item["code"] for item in api.get("/api/tiers").json()["items"]] == ["A"]


def test_a_key_that_opens_nothing_is_replaced(run: Callable[..., Dev], directory: Path) -> None:
    assert run("--empty").ready().stop() == 0
    record = DevRecord.load(directory)
    record.api_key = record.api_key[:-8] + "00000000"
    record.save(directory)
    second = run("--empty")
    second.until("making a new society")
    second.ready()
    assert second.record["tenant_id"] != record.tenant_id
    with second.api() as api:
        assert api.get("/api/tiers").status_code == 200


def test_whoever_dies_is_started_again_and_dev_json_says_so(run: Callable[..., Dev]) -> None:
    dev = run("--empty", "--workers", "2").ready()
    pids = dev.record["pids"]
    os.kill(pids["workers"][0], signal.SIGKILL)
    worker = int(dev.until(r"worker-1 runs again \(pid (\d+)\)")[1])
    assert dev.record["pids"]["workers"] == [worker, pids["workers"][1]]
    os.kill(pids["api"], signal.SIGKILL)
    api = int(dev.until(r"api runs again \(pid (\d+)\)")[1])
    assert dev.record["pids"]["api"] == api


def test_a_server_that_goes_is_missed_but_not_started_again(run: Callable[..., Dev]) -> None:
    dev = run("--empty").ready()
    everyone = dev.everyone()
    os.kill(dev.record["pids"]["valkey"], signal.SIGKILL)
    dev.until(r"Valkey \(pid \d+\) is gone")
    os.kill(dev.record["pids"]["postgres"], signal.SIGQUIT)
    dev.until(r"PostgreSQL \(pid \d+\) is gone")
    assert (dev.record["pids"]["valkey"], dev.record["pids"]["postgres"]) == (None, None)
    assert dev.stop() == 0
    assert not alive(everyone)


def test_a_second_one_on_the_same_directory_is_refused(run: Callable[..., Dev]) -> None:
    dev = run("--empty").ready()
    second = run("--empty")
    said, _ = second.process.communicate()
    assert said == f"guthi: another guthi dev (pid {dev.process.pid}) runs on {dev.directory}\n"
    assert second.process.returncode == 2
    assert dev.process.poll() is None


def test_a_port_in_use_is_told_before_anything_starts(run: Callable[..., Dev]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
        taken.listen()
        port = taken.getsockname()[1]
        dev = run("--empty", port=port)
        said, _ = dev.process.communicate()
    assert said == f"guthi: port {port} is in use: choose another one with --port\n"
    assert dev.process.returncode == 2
    assert not (dev.directory / "postgres").exists()


def test_what_a_killed_one_left_behind_is_stopped_by_the_next(run: Callable[..., Dev]) -> None:
    first = run("--empty").ready()
    before, left = first.record, first.everyone()
    first.process.kill()
    first.process.wait()
    second = run("--empty", port=first.port).ready()
    postgres = before["pids"]["postgres"]
    assert alive(left) == [postgres] == [second.record["pids"]["postgres"]]  # that one is adopted
    assert second.record["api_key"] == before["api_key"]


def test_the_sample_is_made_once(run: Callable[..., Dev]) -> None:
    first = run().ready()
    first.until(r"^contributions: Active 5,000 of 5,000$")
    first.until(rf"^API documentation: +http://127\.0\.0\.1:{first.port}/docs$")
    with first.api() as api:
        assert api.get("/docs").status_code == 200
        tiers, agents, cycles = (api.get(f"/api/{what}").json()["items"] for what in LISTS)
    assert [len(tiers), len(agents), [cycle["cycleStatus"] for cycle in cycles]] == [3, 20, ["Active"]]
    assert first.stop() == 0
    second = run().ready()
    second.until("^API documentation")
    with second.api() as api:
        assert [api.get(f"/api/{what}").json()["items"] for what in LISTS] == [tiers, agents, cycles]
