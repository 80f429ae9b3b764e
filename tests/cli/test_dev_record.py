"""`dev.json`, the lock, and what a killed `dev` leaves behind."""

import subprocess
import sys
from pathlib import Path

import pytest

from cli.dev_record import DevError, DevRecord, Pids, lock, session_secret, stop_leftovers

URL = "postgresql://guthi_app@/guthi?host=/run/x"


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    record = DevRecord("http://a", URL, "owner", "redis", "tenant", "key", Pids(1, [2, 3], 4, None))
    record.save(tmp_path)
    assert DevRecord.load(tmp_path) == record
    assert {path.name for path in tmp_path.iterdir()} == {"dev.json", "env"}


def test_nobody_else_may_read_the_key(tmp_path: Path) -> None:
    for _ in range(2):
        DevRecord(api_key="key").save(tmp_path)
        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"api_url": 1}', '{"pids": {"cats": 1}}'])
def test_a_broken_file_counts_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "dev.json").write_text(content)
    assert DevRecord.load(tmp_path) == DevRecord()


def test_a_shell_reads_env(tmp_path: Path) -> None:
    DevRecord(database_url=URL, api_key="it's").save(tmp_path)
    script = f'. {tmp_path}/env && printf \'%s %s\' "$GUTHI_DATABASE_URL" "$GUTHI_API_KEY"'
    assert subprocess.check_output(["sh", "-c", script], text=True) == f"{URL} it's"


def test_the_lock_is_for_one(tmp_path: Path) -> None:
    with lock(tmp_path), pytest.raises(DevError, match=r"another guthi dev \(pid \d+\)"):
        lock(tmp_path)
    lock(tmp_path).close()


def test_leftovers_are_stopped_and_strangers_are_not(tmp_path: Path) -> None:
    sleep = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
    ours = {"env": {"GUTHI_DATABASE_URL": URL}, "stdout": subprocess.PIPE}
    leftover = subprocess.Popen([*sleep, "cli.main", "worker"], **ours)
    valkey = subprocess.Popen(sleep, cwd=tmp_path, stdout=subprocess.PIPE)
    other_database = subprocess.Popen([*sleep, "cli.main", "api"], env={}, stdout=subprocess.PIPE)
    other_program = subprocess.Popen(sleep, **ours)
    everyone = (leftover, valkey, other_database, other_program)
    for process in everyone:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
    try:
        pids = Pids(other_database.pid, [leftover.pid, other_program.pid, 2**22 + 1], None, valkey.pid)
        assert stop_leftovers(DevRecord(database_url=URL, pids=pids), tmp_path) == [leftover.pid, valkey.pid]
        assert leftover.poll() is not None and valkey.poll() is not None
        assert (other_database.poll(), other_program.poll()) == (None, None)
    finally:
        for process in everyone:
            process.kill()
            process.communicate()


def test_the_secret_of_the_sessions_is_kept_and_private(tmp_path: Path) -> None:
    secret = session_secret(tmp_path)
    assert len(secret) == 64 and session_secret(tmp_path) == secret
    assert (tmp_path / "session_secret").stat().st_mode & 0o777 == 0o600
