"""The embedded servers: what they promise to the tests, benches and `guthi dev` that stand on them."""

import contextlib
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from db.embedded import ROLES, EmbeddedPostgres, EmbeddedServerError, EmbeddedValkey, free_port, postmaster_pid


@pytest.fixture(scope="module")
def postgres() -> Iterator[EmbeddedPostgres]:
    with tempfile.TemporaryDirectory(prefix="gt", dir="/tmp") as base, EmbeddedPostgres(Path(base) / "pg") as server:
        yield server


@pytest.fixture
def valkey() -> Iterator[EmbeddedValkey]:
    with tempfile.TemporaryDirectory(prefix="gt", dir="/tmp") as base, EmbeddedValkey(Path(base)) as server:
        yield server


async def value(url: str, query: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def execute(url: str, query: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(query)
    finally:
        await connection.close()


async def test_the_app_is_bound_by_row_level_security_and_owns_nothing(postgres: EmbeddedPostgres) -> None:
    about_me = (
        "SELECT rolsuper OR rolbypassrls OR rolcreatedb OR rolcreaterole FROM pg_roles WHERE rolname = current_user"
    )
    assert await value(postgres.app_url, about_me) is False
    assert await value(postgres.app_url, "SHOW jit") == "off"
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await execute(postgres.app_url, "CREATE TABLE mine ()")


async def test_the_owner_bypasses_it_and_owns_the_database(postgres: EmbeddedPostgres) -> None:
    assert await value(postgres.admin_url, "SELECT rolbypassrls FROM pg_roles WHERE rolname = current_user") is True
    owner = "SELECT datdba::regrole::text FROM pg_database WHERE datname = current_database()"
    assert await value(postgres.admin_url, owner) == "guthi_owner"


async def test_roles_twice_change_nothing(postgres: EmbeddedPostgres) -> None:
    roles = "SELECT array_agg(r::text ORDER BY 1) FROM pg_roles r"
    before = await value(postgres.superuser_url, roles)
    await execute(postgres.superuser_url, ROLES.read_text())
    assert await value(postgres.superuser_url, roles) == before


async def test_what_is_committed_outlives_a_crash(postgres: EmbeddedPostgres) -> None:
    assert await value(postgres.admin_url, "SHOW fsync") == "on"
    await execute(postgres.admin_url, "CREATE TABLE kept AS SELECT 42 AS answer")
    address = postgres.app_url
    postgres.stop("immediate")
    assert postgres.pid is None
    postgres.start()
    assert postgres.app_url == address
    assert await value(postgres.admin_url, "SELECT answer FROM kept") == 42


async def test_it_starts_again_right_after_its_postmaster_was_killed(postgres: EmbeddedPostgres) -> None:
    killed = postgres.pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    postgres.start()
    assert postgres.pid not in (None, killed)
    assert await value(postgres.app_url, "SELECT 1") == 1


def test_a_running_one_is_adopted(postgres: EmbeddedPostgres) -> None:
    again = EmbeddedPostgres(postgres.data_dir)
    again.start()
    assert (again.pid, again.app_url) == (postgres.pid, postgres.app_url)


def test_a_pid_that_another_process_got_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "postmaster.pid").write_text(f"{os.getpid()}\n{tmp_path}\n")
    assert postmaster_pid(tmp_path) is None


def test_servers_are_out_of_reach_of_the_terminals_ctrl_c(postgres: EmbeddedPostgres, valkey: EmbeddedValkey) -> None:
    for pid in (postgres.pid, valkey.pid):
        assert pid is not None
        assert os.getsid(pid) != os.getsid(0)


def test_valkey_starts_again_on_its_port_with_nothing_kept(valkey: EmbeddedValkey) -> None:
    assert ask(valkey.port, b"SET bell rung\r\n") == b"+OK\r\n"
    valkey.kill()
    assert valkey.pid is None
    valkey.start()
    assert ask(valkey.port, b"EXISTS bell\r\n") == b":0\r\n"


def test_valkey_says_when_its_port_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(EmbeddedServerError, match=str(port)):
            EmbeddedValkey(tmp_path, port).start()


def ask(port: int, command: bytes) -> bytes:
    with contextlib.closing(socket.create_connection(("127.0.0.1", port), timeout=5)) as connection:
        connection.sendall(command)
        return connection.recv(100)
