"""How far from what the server could do at all, and where the time of a job goes."""

import json
import time
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from statistics import median
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import psutil

from bench.create import HEAP_TABLE, fill_heap
from bench.report import Part, Table, in_seconds
from bench.scale import Scale
from bench.stage import Client, Process, Stage, until_active
from db.queries import sql
from tests.support import Society

TURNS = 3
BATCH_ROWS = 20_000
PROFILED = ("lock_shard", "find_owing", "insert_contributions", "advance_shard", "count_contributions_between")


async def measure(stage: Stage, scale: Scale) -> Part:
    members, turns = scale.pick(1_000_000, 50_000), scale.pick(TURNS, 1)
    await stage.owner.execute(HEAP_TABLE)
    society = await stage.society(members, "FLO")
    jobs, heaps = [], []
    async with stage.workers(2) as workers:
        for _ in range(turns + 1):
            jobs.append(await _job(stage, society, workers))
            await stage.clear()
            heaps.append(await fill_heap(stage, society))
        await stage.clear()
    spent = jobs[1:]
    shares = {what: median(job[what] for job in spent) for what in spent[0]}
    cpu = sum(value for what, value in shares.items() if what != "seconds")
    where = [
        [what, f"{1e6 * value / members:.2f} us", f"{100 * value / cpu:.0f} %"]
        for what, value in shares.items()
        if what != "seconds"
    ]
    seconds, heap = shares["seconds"], median(heaps[1:])
    statements = await _profile(stage, society, scale.pick(BATCH_ROWS, 5_000))
    return Part(
        [
            Table(
                f"{members:,} members",
                ["", "seconds", "to the floor"],
                [
                    ["the floor: a heap without any index, two sessions", in_seconds(heap), "1.00 x"],
                    ["this system", in_seconds(seconds), f"{seconds / heap:.2f} x"],
                ],
            ),
            Table("Where a job's processor time goes, a row", ["process", "CPU a row", "share"], where),
            Table(
                f"One batch of {scale.pick(BATCH_ROWS, 5_000):,} rows, statement by statement, as the app's role",
                ["statement", "planning", "execution", "buffers hit", "buffers written to", "WAL records", "WAL bytes"],
                statements,
                "EXPLAIN (ANALYZE, WAL, BUFFERS), whose own clock makes each a little slower than it is.",
            ),
        ],
        [],
        {
            "cpu": {what: value / members for what, value in shares.items() if what != "seconds"},
            "statements": statements,
        },
    )


async def _job(stage: Stage, society: Society, workers: list[Process]) -> dict[str, float]:
    """Seconds of one job, and the processor time of everybody who worked for it."""
    await stage.clear()
    before, started = await _cpu(stage, workers), time.perf_counter()
    cycle = Client(stage.port, society.api_key).start_cycle(society, strategy="queued")
    seconds = await until_active(stage.owner, cycle["cycleId"], 0.01) - started
    after = await _cpu(stage, workers)
    await stage.settled()
    return {"seconds": seconds} | {what: after[what] - before.get(what, 0.0) for what in after}


async def _cpu(stage: Stage, workers: list[Process]) -> dict[str, float]:
    seconds = {"workers (Python)": 0.0, "backends (PostgreSQL)": 0.0, "WAL writer, checkpointer and the like": 0.0}

    def add(what: str, pid: int) -> None:
        times = psutil.Process(pid).cpu_times()
        seconds[what] += times.user + times.system

    for worker in workers:
        add("workers (Python)", worker.pid)
    own = await stage.superuser.fetch("SELECT pid, usename, backend_type FROM pg_stat_activity")
    for process in own:
        if process["usename"] == "guthi_app":
            add("backends (PostgreSQL)", process["pid"])
        elif process["backend_type"] != "client backend":
            add("WAL writer, checkpointer and the like", process["pid"])
    return seconds


async def _profile(stage: Stage, society: Society, rows: int) -> list[list[str]]:
    """A job's second batch, statement by statement, on a shard that a worker could have."""
    await stage.clear()
    cycle = Client(stage.port, society.api_key).start_cycle(society, strategy="queued")
    app = await asyncpg.connect(stage.postgres.app_url)
    try:
        async with app.transaction():
            await app.execute(f"SELECT set_tenant('{society.tenant_id}')")
            await app.execute("SET LOCAL plan_cache_mode = force_custom_plan")
            job = await app.fetchrow("SELECT * FROM batch_jobs WHERE job_id = $1::text::uuid", cycle["jobId"])
            values = await _values(app, society, job, rows)
            return [await _explain(app, name, values) for name in PROFILED]
    finally:
        await app.close()
        await stage.owner.execute("UPDATE batch_jobs SET state = 'Cancelled'")


async def _values(app: asyncpg.Connection, society: Society, job: asyncpg.Record, rows: int) -> dict[str, Any]:
    """What the statements of a batch are given, by the names that `sql/queries` has for it."""
    params, token = json.loads(job["params"]), uuid4()
    await app.execute(
        "UPDATE batch_job_shards SET lease_token = $1, lease_expires_at = now() + interval '1 min' WHERE job_id = $2",
        token,
        job["job_id"],
    )
    lowest, highest = str(UUID(int=0)), str(UUID(int=2**128 - 1))
    bound = await app.fetchval(
        "SELECT member_id FROM tier_memberships WHERE tenant_id = $1 AND tier_id = $2"
        " ORDER BY member_id OFFSET $3 LIMIT 1",
        society.tenant_id,
        society.tier_id,
        rows - 1,
    )
    return {
        "tenant_id": society.tenant_id,
        "job_id": job["job_id"],
        "shard_no": 0,
        "lease_token": token,
        "lease": timedelta(seconds=60),
        "cycle_id": job["subject_id"],
        "cursor": lowest,
        "upper": highest,
        "skip": rows - 1,
        "rows": rows,
        "bound": str(bound),
        "tier_id": society.tier_id,
        "deceased_member_id": society.dead,
        "as_of": datetime.fromisoformat(params["as_of"]),
        "contribution_amount": Decimal(params["contribution_amount"]),
        "due_date": date.fromisoformat(params["due_date"]),
    }


async def _explain(app: asyncpg.Connection, name: str, values: Mapping[str, Any]) -> list[str]:
    """One line of the table; the statement is really run."""
    given = [values.get(parameter) for parameter in sql.driver_adapter.var_sorted[name]]
    query = f"EXPLAIN (ANALYZE, WAL, BUFFERS, FORMAT JSON) {getattr(sql, name).sql}"
    (seen,) = json.loads(await app.fetchval(query, *given))
    plan = seen["Plan"]
    return [
        name,
        f"{seen['Planning Time']:.2f} ms",
        f"{seen['Execution Time']:.2f} ms",
        f"{plan['Shared Hit Blocks']:,}",
        f"{plan['Shared Dirtied Blocks']:,}",
        f"{plan.get('WAL Records', 0):,}",
        f"{plan.get('WAL Bytes', 0):,}",
    ]
