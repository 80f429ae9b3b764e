"""Migrations: from nothing to the newest schema, twice, at once, and what is said when one cannot run."""

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
import pytest

from core.errors import SettingsError
from db.embedded import EmbeddedPostgres
from db.migrate import MIGRATIONS, MigrationError, dbmate_url, migrate


@pytest.fixture(scope="module")
def postgres() -> Iterator[EmbeddedPostgres]:
    with tempfile.TemporaryDirectory(prefix="gt", dir="/tmp") as base, EmbeddedPostgres(Path(base) / "pg") as server:
        yield server


async def versions(url: str) -> list[str]:
    connection = await asyncpg.connect(url)
    try:
        return [row["version"] for row in await connection.fetch("SELECT version FROM schema_migrations ORDER BY 1")]
    finally:
        await connection.close()


async def test_several_at_once_run_each_migration_once(postgres: EmbeddedPostgres) -> None:
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(migrate, [postgres.admin_url] * 3))
    assert await versions(postgres.admin_url) == sorted(path.name[:4] for path in MIGRATIONS.glob("*.sql"))


async def test_a_second_run_changes_nothing(postgres: EmbeddedPostgres) -> None:
    migrate(postgres.admin_url)
    before = await versions(postgres.admin_url)
    migrate(postgres.admin_url)
    assert await versions(postgres.admin_url) == before


def test_a_failure_is_told_in_the_drivers_words(postgres: EmbeddedPostgres) -> None:
    with pytest.raises(MigrationError, match="permission denied"):
        migrate(postgres.app_url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://o@/guthi?host=/run/x", "postgres://o@/guthi?host=%2Frun%2Fx&sslmode=disable&lock_timeout=10s"),
        ("postgresql://o:p@db:5433/guthi", "postgres://o:p@db:5433/guthi?sslmode=prefer&lock_timeout=10s"),
        ("postgresql://o@db/guthi?sslmode=require", "postgres://o@db/guthi?sslmode=require&lock_timeout=10s"),
    ],
)
def test_urls_are_spelled_as_dbmate_takes_them(url: str, expected: str) -> None:
    assert dbmate_url(url) == expected


def test_a_url_without_a_host_is_refused() -> None:
    with pytest.raises(SettingsError, match="GUTHI_ADMIN_DATABASE_URL"):
        dbmate_url("postgresql:///guthi")
