"""Would the crash points notice? Bugs that people do write are planted into a copy of the code, one at a time.

A bug is a few replacements of text, each of which must match exactly once: else the list is out of date, and the
run fails. The copy then runs the crash points that should strike it, in a process of its own. A bug that nothing
notices fails the run; and so does the copy without any bug, if anything is noticed there.
"""

import asyncio
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from prove.client import WAITED, NotRecoveredError
from prove.crash_points import Try, calls_of, try_all
from prove.injection import Mode, watching
from prove.report import Options, Outcome, table
from prove.scenarios import MEMBERS, SCENARIOS
from prove.world import World

ROOT = Path(__file__).parents[1]
COPIED = ("api", "cli", "core", "db", "domain", "jobs", "prove", "sql", "tests", "worker")
AT_ONCE = 2
LONGEST_SECONDS = 1_200


@dataclass(frozen=True, slots=True)
class Edit:
    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Bug:
    """`scenario` is run without a fault first; then `calls` of it are broken in `modes`, until something is wrong."""

    edits: Sequence[Edit]
    scenario: str
    modes: Sequence[Mode] = ()
    calls: Sequence[str] = ()


RUNNER, TRANSITIONS, JOBS_SQL = "jobs/engine/runner.py", "jobs/engine/transitions.py", "sql/queries/batch_jobs.sql"
ADVANCE = "    processed = await advance(\n"
ADVANCING = ["sql:advance_shard", "sql:advance_and_sample_shard"]
AFTER_BATCH = """            engine.faults.reach("before_commit")
        engine.faults.reach("after_commit")
"""
CURSOR_APART = Edit(
    RUNNER,
    ADVANCE,
    """    await tx.connection.execute("COMMIT")
    await tx.connection.execute(engine.database._begin(tx.tenant_id, True, 60))
"""
    + ADVANCE,
)

BUGS: Mapping[str, Bug] = {
    "cursor committed apart from the rows": Bug([CURSOR_APART], "cycle", [Mode.KILLED_BEFORE, Mode.CUT], ADVANCING),
    "count not in the same transaction": Bug(
        [
            Edit(
                RUNNER,
                "        rows=walked,\n",
                '        rows=0 if job.kind == "create_contributions" else walked,\n',
            ),
            Edit(
                RUNNER,
                AFTER_BATCH,
                AFTER_BATCH
                + """        async with engine.database.transaction(lease.job.tenant_id) as tx:
            await tx.connection.execute(
                "UPDATE batch_job_shards SET processed = processed + $1 WHERE job_id = $2 AND shard_no = $3",
                batch.rows if lease.job.kind == "create_contributions" else 0,
                lease.job.job_id,
                lease.shard_no,
            )
""",
            ),
        ],
        "cycle",
        [Mode.KILLED_AFTER],
        ["sql:commit"],
    ),
    "lease not checked": Bug(
        [
            Edit(
                JOBS_SQL,
                "AND lease_token = :lease_token\nFOR UPDATE;",
                "AND (lease_token = :lease_token OR true)\nFOR UPDATE;",
            ),
            Edit(
                JOBS_SQL,
                "AND lease_token = :lease_token\nRETURNING processed;",
                "AND (lease_token = :lease_token OR true)\nRETURNING processed;",
            ),
            Edit(
                JOBS_SQL,
                "AND lease_token = :lease_token\n    RETURNING tenant_id, job_id, shard_no, processed",
                "AND (lease_token = :lease_token OR true)\n    RETURNING tenant_id, job_id, shard_no, processed",
            ),
            # The table is a second guard: a shard that nobody holds cannot be given a lease's end.
            Edit(
                "sql/migrations/0004_batch_jobs.sql",
                "    CHECK ((lease_token IS NULL) = (lease_expires_at IS NULL)),\n",
                "",
            ),
        ],
        "cancel",
        [Mode.FROZEN],
        ["sql:begin"],
    ),
    "finish without the job-row lock": Bug(
        [
            Edit(
                RUNNER,
                "await _end(engine, tx, lease, await lock_job(tx, lease.job.job_id))",
                "await _end(engine, tx, lease, lease.job)",
            )
        ],
        "shards",
        [Mode.STALLED],
        ["sql:commit"],
    ),
    "sweep ignores expired leases": Bug(
        [
            Edit(
                "sql/migrations/0004_batch_jobs.sql",
                "(s.lease_expires_at IS NULL OR s.lease_expires_at < clock_timestamp())",
                "s.lease_expires_at IS NULL",
            )
        ],
        "cycle",
        [Mode.KILLED_BEFORE],
        ["sql:lock_shard"],
    ),
    "ON CONFLICT DO NOTHING hides a batch done twice": Bug(
        [
            CURSOR_APART,
            Edit(
                "sql/queries/contributions.sql",
                """AND member_id > :cursor::uuid AND member_id <= :bound::uuid
  AND valid_from <= :as_of AND (valid_to IS NULL OR valid_to > :as_of)
  AND member_id <> :deceased_member_id;""",
                """AND member_id > :cursor::uuid AND member_id <= :bound::uuid
  AND valid_from <= :as_of AND (valid_to IS NULL OR valid_to > :as_of)
  AND member_id <> :deceased_member_id
ON CONFLICT DO NOTHING;""",
            ),
        ],
        "cycle",
        [Mode.KILLED_BEFORE, Mode.CUT],
        ADVANCING,
    ),
    "retry resets the cursor": Bug(
        [
            Edit(
                JOBS_SQL,
                "SET attempts = 0, next_attempt_at = NULL, error = NULL",
                "SET attempts = 0, next_attempt_at = NULL, error = NULL, cursor = NULL",
            )
        ],
        "retry",
    ),
    "progress written before the commit": Bug(
        [
            Edit(
                RUNNER,
                AFTER_BATCH,
                """            shown = ShardProgress(lease.shard_no, batch.processed, 0.0)
            await engine.progress.write(lease.job, lease.shard_count, shown)
"""
                + AFTER_BATCH,
            )
        ],
        "cycle",
        [Mode.KILLED_BEFORE],
        ["sql:commit"],
    ),
    "idempotency key stored after the cycle": Bug(
        [
            Edit(
                "api/idempotency.py",
                "        await store_answer(tx, key, asked.digest(), stored)\n",
                """    async with database.transaction(caller.tenant_id) as tx:
        await store_answer(tx, key, asked.digest(), stored)
""",
            )
        ],
        "cycle",
        [Mode.KILLED_BEFORE],
        ["sql:insert_idempotency_key"],
    ),
    "tenant not set": Bug([Edit("db/database.py", "SELECT set_tenant('{tenant_id}'); ", "")], "cycle"),
    "a lease that ran out is not counted": Bug(
        [
            Edit(
                JOBS_SQL,
                "attempts = shard.attempts + (shard.lease_token IS NOT NULL)::integer,",
                "attempts = shard.attempts,",
            )
        ],
        "given up",
    ),
    "what follows is started after the commit": Bug(
        [
            Edit(
                TRANSITIONS,
                "    await start_jobs(engine, tx, follow_ups)\n",
                """
    async def later() -> None:
        async with engine.database.transaction(tx.tenant_id) as own:
            await start_jobs(engine, own, follow_ups)

    tx.after_commit(later)
""",
            )
        ],
        "cycle",
        [Mode.KILLED_AFTER],
        ["sql:commit"],
    ),
    "a change of state without its event": Bug(
        [
            Edit(
                "domain/cycles.py",
                "    await record_change(tx, EVENT_OF_STATUS[status], cycle, changed, **facts)\n",
                "",
            )
        ],
        "cycle",
    ),
}
CONTROL = "no bug at all"
SHORT = 3
"""So many, drawn with the seed, a short proof plants beside the control. Whether each fits the code it always asks."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`by`: the run that noticed; None: nothing did. `evidence`: the first thing it found wrong."""

    name: str
    by: str | None
    evidence: str
    seconds: float


async def prove(options: Options) -> Outcome:
    names = [name for name in BUGS if not options.only or any(text in name for text in options.only)]
    if not names:
        return Outcome("", [f"no bug has {' or '.join(options.only)} in its name: there are {', '.join(BUGS)}"])
    for name in names:
        _check_fits(name)
    if not options.long and not options.only:
        names = random.Random(options.seed).sample(names, SHORT)
    slots = asyncio.Semaphore(AT_ONCE)

    async def in_turn(name: str) -> Verdict:
        async with slots:
            return await asyncio.to_thread(_plant, name, names if name == CONTROL else [name])

    verdicts = await asyncio.gather(*(in_turn(name) for name in (CONTROL, *names)))
    rows = [(v.name, v.by or "-", v.evidence, f"{v.seconds:.0f}") for v in verdicts]
    failures = [
        f"{v.name}: {'noticed where there is none: ' + v.evidence if v.by else 'nothing noticed it'}"
        for v in verdicts
        if (v.by is None) != (v.name == CONTROL)
    ]
    return Outcome(table(["bug", "noticed by", "what it saw", "s"], rows), failures)


def _plant(name: str, judged_by: Sequence[str]) -> Verdict:
    """In a copy of the tree, which is gone afterwards; `judged_by`: the bugs whose crash points it runs."""
    started = monotonic()
    with tempfile.TemporaryDirectory(prefix="gp", dir="/tmp") as folder:
        tree = Path(folder)
        for part in COPIED:
            shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
        for edit in BUGS[name].edits if name in BUGS else ():
            plant(tree, edit)
        done = subprocess.run(
            [sys.executable, "-m", "prove.planted_bugs", name, *judged_by],
            cwd=tree,
            capture_output=True,
            text=True,
            timeout=LONGEST_SECONDS,
        )
    if done.returncode:
        raise RuntimeError(f"{name}: the copy could not be judged: {done.stderr[-2_000:]}")
    by, evidence = json.loads(done.stdout.splitlines()[-1])
    return Verdict(name, by, evidence, monotonic() - started)


def _check_fits(name: str) -> None:
    """Raises `ValueError` for a bug that no longer fits the code."""
    with tempfile.TemporaryDirectory(prefix="gp", dir="/tmp") as folder:
        for file in {edit.file for edit in BUGS[name].edits}:
            (Path(folder) / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, Path(folder) / file)
        for edit in BUGS[name].edits:
            plant(Path(folder), edit)


def plant(tree: Path, edit: Edit) -> None:
    path = tree / edit.file
    text = path.read_text()
    if text.count(edit.old) != 1:
        raise ValueError(f"{edit.file} has {text.count(edit.old)} times {edit.old!r}: the bug is out of date")
    path.write_text(text.replace(edit.old, edit.new))


async def judge(name: str, judged_by: Sequence[str]) -> tuple[str | None, str]:
    """In the copy: what noticed, and what it saw."""
    with watching():
        async with World.open(MEMBERS) as world:
            for bug in (BUGS[other] for other in judged_by):
                by, evidence = await _notice(world, bug, most=2 if name == CONTROL else None)
                if by is not None:
                    return by, evidence
    return None, ""


async def _notice(world: World, bug: Bug, most: int | None) -> tuple[str | None, str]:
    """Undisturbed first; then broken, `most` times or wherever it can be."""
    try:
        points = await calls_of(world, SCENARIOS[bug.scenario], bug.scenario)
    except NotRecoveredError as error:
        return f"{bug.scenario}, no fault", _short(str(error))
    tries = [Try(bug.scenario, mode, point) for mode in bug.modes for point in points if point.name in bug.calls]
    noticed = [tried for tried in await try_all(world, tries[:most]) if tried.wrong]
    # What is wrong says more than that something did not come true in time.
    for tried in sorted(noticed, key=lambda tried: tried.wrong[0].startswith(WAITED)):
        return str(tried.what), _short(tried.wrong[0])
    return None, ""


def _short(text: str) -> str:
    return " ".join(text.split()).replace("|", "/")[:160]


if __name__ == "__main__":
    print(json.dumps(asyncio.run(judge(sys.argv[1], sys.argv[2:]))))
