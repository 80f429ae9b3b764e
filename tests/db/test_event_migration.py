"""What stood before events were kept for everything is adopted, and replays."""

import shutil
import tempfile
from pathlib import Path

import asyncpg
import pytest

from db.embedded import EmbeddedPostgres
from db.migrate import MIGRATIONS, migrate
from db.queries import sql
from domain.replay import Replayed, replay
from jobs.invariants import broken_in_tenant

OLD_ROWS = """
WITH t AS (INSERT INTO tenants (name, prefix) VALUES ('Old', 'OLD') RETURNING tenant_id),
u AS (INSERT INTO users (tenant_id, email, name, role) SELECT tenant_id, 'a@b', 'A', 'admin' FROM t RETURNING *),
r AS (
    INSERT INTO tiers (tenant_id, code, name, contribution_amount, benefit_amount)
    SELECT tenant_id, 'A', 'A', 999999999999.99, 5 FROM t RETURNING *
), m AS (
    INSERT INTO members (tenant_id, member_number, full_name, gender, status, tier_id, joined_on, version)
    SELECT tenant_id, 'x', 'X', 'F', 'Deceased', tier_id, '2020-01-01', 3 FROM r RETURNING *
), c AS (
    INSERT INTO contribution_cycles (
        tenant_id, cycle_code, tier_id, deceased_member_id, contribution_amount, benefit_amount, as_of, start_date,
        deadline, created_by, cycle_status, total_members, version
    )
    SELECT m.tenant_id, 'CC-2025-00001', m.tier_id, member_id, 100, 5, '2025-01-01 00:00:00.1+00', '2025-01-01',
        '2025-01-16', user_id, 'Active', 7, 2
    FROM m, u RETURNING *
)
INSERT INTO events (tenant_id, aggregate_type, aggregate_id, version, event_type, payload)
SELECT tenant_id, 'contribution_cycle', cycle_id, 1, 'ContributionCycleInitiated', jsonb_build_object(
    'cycleStatus', 'Initializing', 'totalMembers', NULL, 'cycleCode', cycle_code, 'tierId', tier_id,
    'deceasedMemberId', deceased_member_id, 'contributionAmount', '100.00', 'benefitAmount', '5.00',
    'asOf', '2025-01-01T00:00:00.100000+00:00', 'deadline', '2025-01-16'
) FROM c
UNION ALL
SELECT tenant_id, 'contribution_cycle', cycle_id, 2, 'ContributionCycleActivated',
    '{"cycleStatus": "Active", "totalMembers": 7, "reason": null}' FROM c
"""


async def test_rows_and_events_of_before_are_adopted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in MIGRATIONS.glob("*.sql"):
        if file.name < "0008":
            shutil.copy(file, tmp_path)
    with tempfile.TemporaryDirectory(prefix="gt", dir="/tmp") as base, EmbeddedPostgres(Path(base) / "pg") as server:
        with monkeypatch.context() as early:
            early.setattr("db.migrate.MIGRATIONS", tmp_path)
            migrate(server.admin_url)
        owner = await asyncpg.connect(server.admin_url)
        try:
            await owner.execute(OLD_ROWS)
            migrate(server.admin_url)
            (tenant_id,) = [row["tenant_id"] async for row in sql.tenant_ids(owner)]
            walked = Replayed()
            assert [each async for each in replay(owner, tenant_id, walked)] == []
            assert (walked.aggregates, walked.events) == (4, 5)
            assert await broken_in_tenant(owner, tenant_id, ["broken_events"]) == []
            assert await owner.fetchval("SELECT adopt_rows()") == 0
        finally:
            await owner.close()
