"""What is done to the system while it is broken, and what must be there in the end.

A scenario's script is what its client does: ask, ask again until an answer comes, go on. Run from its start once
more, by another client who knows nothing but the keys it used, it does nothing twice: that is how a script goes on
after its whole process was killed.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg

from domain.cycles import Cycle
from prove.client import NotRecoveredError, Run
from prove.world import Place, flush_redis, found, members_who_owe, wrong_contributions, wrong_notifications


async def _nothing(_: Any) -> None:
    pass


@dataclass(frozen=True)
class Scenario:
    """`script` may be run again from its start at any time; `check` says what is not as it must be in the end."""

    script: Callable[[Run], Awaitable[None]]
    check: Callable[[Run], Awaitable[list[str]]]
    prepare: Callable[[Place], Awaitable[None]] = _nothing
    settings: Mapping[str, object] = field(default_factory=dict)


BY_THE_SLICE = {"slice_seconds": 0.0, "batch_rows": 40}
"""Each batch is a slice, and a ring, of its own."""


async def cycle(run: Run) -> None:
    await run.start_cycle()
    await run.quiet()
    await run.maintain("relay_events")
    await run.maintain("chain_audit")


async def inline(run: Run) -> None:
    await run.start_cycle("inline")
    await run.quiet()


async def pause(run: Run) -> None:
    cycle_id = await run.start_cycle()
    await run.rows_stand(cycle_id, 40)
    job_id = await run.job_id(cycle_id)
    await run.steer("pause", job_id)
    await run.steer("resume", job_id)
    await run.quiet()


async def cancel(run: Run) -> None:
    cycle_id = await run.start_cycle()
    await run.rows_stand(cycle_id, 80)
    await run.steer("cancel", await run.job_id(cycle_id))
    await run.quiet()


async def retry(run: Run) -> None:
    """The job fails at a row that a constraint forbids; the cause is mended, and it is retried."""
    cycle_id = await run.start_cycle()
    await run.until(lambda: _has_failed(run, cycle_id), "the job fails")
    await run.owner.execute("ALTER TABLE contributions DROP CONSTRAINT IF EXISTS planted")
    if await run.job_state(cycle_id) == "Failed":
        await run.steer("retry", await run.job_id(cycle_id))
    await run.quiet()


async def _has_failed(run: Run, cycle_id: UUID) -> bool:
    """Also when it was retried since."""
    failed = await run.owner.fetchval(
        "SELECT state = 'Failed' OR attempts > 0 FROM batch_jobs"
        " WHERE kind = 'create_contributions' AND subject_id = $1",
        cycle_id,
    )
    return bool(failed)


async def forbid_the_middle_member(place: Place) -> None:
    await place.owner.execute(
        "DO $$ BEGIN EXECUTE format('ALTER TABLE contributions ADD CONSTRAINT planted CHECK (member_id <> %L)', ("
        f"SELECT member_id FROM tier_memberships WHERE tenant_id = '{place.society.tenant_id}'"
        f" ORDER BY member_id OFFSET {place.society.members // 2} LIMIT 1)); END $$"
    )


async def transient(run: Run) -> None:
    """The second batch finds the disk full, once; and every ring is lost before it is heard."""
    cycle_id = await run.start_cycle()
    await flush_redis(run.place.settings.redis_url)
    await run.sweep()
    await run.rows_stand(cycle_id, 1)
    await run.quiet()


async def fill_the_disk_once(place: Place) -> None:
    """As PostgreSQL reports it."""
    await place.owner.execute(
        """
        CREATE SEQUENCE batches;
        GRANT USAGE ON SEQUENCE batches TO guthi_app;
        CREATE FUNCTION fill_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF nextval('batches') = 2 THEN RAISE 'could not extend file' USING ERRCODE = '53100'; END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER fill_disk BEFORE INSERT ON contributions FOR EACH STATEMENT EXECUTE FUNCTION fill_disk();
        """
    )


async def given_up(run: Run) -> None:
    """A batch has killed workers before; the last lease that it may let run out fails the job, and it is retried."""
    cycle_id = await run.start_cycle()
    await run.owner.execute(
        "UPDATE batch_job_shards SET lease_token = uuidv7(), lease_expires_at = now(), attempts = $1"
        " WHERE lease_token IS NULL AND processed = 0 AND NOT done AND EXISTS ("
        "SELECT FROM batch_jobs AS j WHERE j.job_id = batch_job_shards.job_id AND j.version = 1"
        " AND j.kind = 'create_contributions')",
        run.place.settings.max_attempts - 1,
    )

    await run.until(lambda: _has_failed(run, cycle_id), "the job is given up")
    if await run.job_state(cycle_id) == "Failed":
        await run.steer("retry", await run.job_id(cycle_id))
    await run.quiet()


GOOD_LINES = 45
CSV = "full_name,gender,tier,agent,status,member_number\n" + "".join(
    f"Imported {n},{'FMO'[n % 3]},A,AG{n % 3 + 1},Active,{f'UML-2020-F-{n:06}' if n % 10 == 0 else ''}\n"
    if n % 15
    else f"Bad {n},F,Z,,Active,\n"
    for n in range(1, 49)
)
"""45 good lines, some with numbers of their own, and 3 with a tier that does not exist."""


async def bring_in(run: Run) -> UUID:
    """The id of the import's job."""
    headers = {"Content-Type": "text/csv"}
    answer = await run.post("/api/members/import", "import", content=CSV.encode(), headers=headers)
    if not answer.is_success:
        raise NotRecoveredError(f"import: {answer.status_code} {answer.text}")
    return UUID(answer.json()["jobId"])


async def import_members(run: Run) -> None:
    await bring_in(run)
    await run.quiet()


async def cancel_import(run: Run) -> None:
    job_id = await bring_in(run)

    async def begun() -> bool:
        row = await run.owner.fetchrow(
            "SELECT state, processed FROM batch_jobs JOIN batch_job_shards USING (job_id) WHERE job_id = $1", job_id
        )
        return row is not None and (row["processed"] > 0 or row["state"] not in ("Queued", "Processing"))

    await run.until(begun, "a batch is in", by_the_slice=True)
    await run.steer("cancel", job_id)
    await run.quiet()


# --- what must be there in the end


async def active(run: Run) -> list[str]:
    one, wrong = await _cycle(run)
    owing = await members_who_owe(run.owner, run.place.society.tenant_id, run.place.society.tier_id)
    jobs = await _jobs(run)
    wanted = {"create_contributions": ("Completed", len(owing)), "notify_agents_new_cycle": ("Completed", 3)}
    events = [row["event_type"] for row in await _events(run, one["cycle_id"])]
    return [
        *wrong,
        *await wrong_contributions(run.owner, one["cycle_id"], owing),
        *await wrong_notifications(run.owner, one["cycle_id"], owing),
        *found(
            (one["cycle_status"] != "Active", lambda: f"the cycle is {one['cycle_status']}"),
            (one["total_members"] != len(owing), lambda: f"the cycle counts {one['total_members']} members"),
            (jobs != wanted, lambda: f"the jobs are {jobs}"),
            (events[0] != "ContributionCycleInitiated", lambda: f"the events are {events}"),
            (events.count("ContributionCycleActivated") != 1, lambda: f"the events are {events}"),
        ),
    ]


async def relayed(run: Run) -> list[str]:
    """And every event has its place in the feed, in order, once."""
    wrong = await run.owner.fetchval(
        "SELECT count(*) FROM (SELECT position, row_number() OVER (PARTITION BY tenant_id ORDER BY position) AS n"
        " FROM events) AS e WHERE position IS DISTINCT FROM n"
    )
    return [*await active(run), *found((wrong > 0, lambda: f"{wrong} events have no place, or a wrong one"))]


async def failed_once(run: Run) -> list[str]:
    """And it tells so, exactly once."""
    one, _ = await _cycle(run)
    events = [row["event_type"].removeprefix("ContributionCycle") for row in await _events(run, one["cycle_id"])]
    wanted = ["Initiated", "Failed", "Retried", "Activated"]
    return [*await active(run), *found((events != wanted, lambda: f"the events are {events}"))]


async def cancelled(run: Run) -> list[str]:
    """Nothing is left. Or all is, if the answer was that it came too late: who can ring nobody goes on alone."""
    one, wrong = await _cycle(run)
    jobs = await _jobs(run)
    if jobs["create_contributions"][0] == "Completed" and run.is_refused:
        return await active(run)
    states = {kind: state for kind, (state, _) in jobs.items()}
    rows = await run.owner.fetchval("SELECT count(*) FROM contributions")
    told = await run.owner.fetchval("SELECT count(*) FROM notifications")
    return [
        *wrong,
        *found(
            (one["cycle_status"] != "Cancelled", lambda: f"the cycle is {one['cycle_status']}"),
            (rows + told > 0, lambda: f"{rows} rows and {told} notifications are left"),
            (states != {"create_contributions": "Cancelled", "remove_contributions": "Completed"}, lambda: str(jobs)),
            (jobs["create_contributions"][1] != jobs["remove_contributions"][1], lambda: str(jobs)),
        ),
    ]


async def imported(run: Run) -> list[str]:
    """Each good line is one member with one number, one event and one membership; each bad one is told of once."""
    names = [row["full_name"] for row in await run.owner.fetch("SELECT full_name FROM members WHERE full_name ~ 'Imp'")]
    told = await run.owner.fetch("SELECT fields ->> 'line' AS line FROM batch_job_log WHERE event = 'row_rejected'")
    jobs = await _jobs(run)
    return [
        *await _staging(run),
        *found(
            (sorted(names) != sorted(set(names)), lambda: "a line was imported twice"),
            (len(names) != GOOD_LINES, lambda: f"{len(names)} members came of {GOOD_LINES} good lines"),
            (sorted(row["line"] for row in told) != ["16", "31", "46"], lambda: f"told of bad lines {told}"),
            (jobs != {"import_members": ("Completed", 48)}, lambda: f"the jobs are {jobs}"),
        ),
    ]


async def import_cancelled(run: Run) -> list[str]:
    """What was made before stays, each line once; nothing of the file is kept."""
    names = [row["full_name"] for row in await run.owner.fetch("SELECT full_name FROM members WHERE full_name ~ 'Imp'")]
    told = await run.owner.fetchval("SELECT count(*) FROM batch_job_log WHERE event = 'row_rejected'")
    ((state, processed),) = (await _jobs(run)).values()
    return [
        *await _staging(run),
        *found(
            (len(names) != len(set(names)), lambda: "a line was imported twice"),
            (len(names) + told != processed, lambda: f"{len(names)} + {told} lines, {processed} were walked"),
            (state != "Cancelled", lambda: f"the job is {state}"),
        ),
    ]


async def _staging(run: Run) -> list[str]:
    left = await run.owner.fetchval("SELECT count(*) FROM member_import_rows")
    return found((left > 0, lambda: f"{left} staged lines are left"))


async def _cycle(run: Run) -> tuple[Cycle, list[str]]:
    """However often it was asked for, there is one and its number is the first."""
    rows = await run.owner.fetch("SELECT * FROM contribution_cycles ORDER BY cycle_id")
    codes = [row["cycle_code"] for row in rows]
    return dict(rows[0]), found(
        (len(rows) != 1 or not codes[0].endswith("-00001"), lambda: f"one was asked for, the cycles are {codes}")
    )


async def _jobs(run: Run) -> dict[str, tuple[str, int]]:
    rows = await run.owner.fetch(
        "SELECT kind, state, sum(processed)::bigint AS processed FROM batch_jobs JOIN batch_job_shards"
        " USING (tenant_id, job_id) GROUP BY kind, state, job_id"
    )
    return {row["kind"]: (row["state"], row["processed"]) for row in rows}


async def _events(run: Run, aggregate_id: UUID) -> list[asyncpg.Record]:
    rows: list[asyncpg.Record] = await run.owner.fetch(
        "SELECT event_type FROM events WHERE aggregate_id = $1 ORDER BY version", aggregate_id
    )
    return rows


SCENARIOS: Mapping[str, Scenario] = {
    "cycle": Scenario(cycle, relayed, settings={"batch_rows": 60}),
    "shards": Scenario(cycle, relayed, settings=BY_THE_SLICE | {"shard_rows": 40}),
    "one batch": Scenario(cycle, relayed, settings={"batch_rows": 500}),
    "inline": Scenario(inline, active),
    "pause": Scenario(pause, active, settings=BY_THE_SLICE),
    "cancel": Scenario(cancel, cancelled, settings=BY_THE_SLICE),
    "retry": Scenario(retry, failed_once, forbid_the_middle_member, {"batch_rows": 40}),
    "transient": Scenario(transient, active, fill_the_disk_once, {"batch_rows": 60}),
    "given up": Scenario(given_up, failed_once, settings={"batch_rows": 60}),
    "import": Scenario(import_members, imported, settings={"batch_rows": 20}),
    "import cancelled": Scenario(cancel_import, import_cancelled, settings={"batch_rows": 20, "slice_seconds": 0.0}),
}
"""The first is the way from the POST to `Active`."""
MEMBERS = 120
