"""The first job: one contribution for every member who owes one.

The set is fixed by the cycle's `as_of`, kept in the job's params: whoever joins, leaves or moves while the
job runs changes nothing, and a retry next week makes the same rows.
"""

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from core.errors import PlanMismatchError
from db.database import Transaction
from db.queries import affected, sql
from domain.cycles import Cycle, NewCycle, count_owing_up_to, open_cycle, set_cycle_status
from jobs.engine.engine import Engine, start_job
from jobs.engine.model import BatchKind, Job, NewJob
from jobs.engine.runner import run_inline

Strategy = Literal["auto", "queued", "inline"]


class CreateContributions(BatchKind):
    """Keys are member ids; the subject is the cycle."""

    name = "create_contributions"

    async def count(self, tx: Transaction, job: Job, cursor: str) -> int:
        return int(await sql.count_owing(tx.connection, tenant_id=tx.tenant_id, cursor=cursor, **_owing(job)))

    async def last_key(self, tx: Transaction, job: Job) -> str | None:
        return _text(await sql.last_owing(tx.connection, tenant_id=tx.tenant_id, **_owing(job)))

    async def find_bound(self, tx: Transaction, job: Job, cursor: str, upper: str, rows: int) -> str | None:
        return _text(
            await sql.find_owing(
                tx.connection, tenant_id=tx.tenant_id, cursor=cursor, upper=upper, skip=rows - 1, **_owing(job)
            )
        )

    async def run_batch(self, tx: Transaction, job: Job, cursor: str, bound: str) -> int:
        tag = await sql.insert_contributions(
            tx.connection,
            tenant_id=tx.tenant_id,
            cycle_id=job.subject_id,
            cursor=cursor,
            bound=bound,
            contribution_amount=Decimal(job.params["contribution_amount"]),
            due_date=date.fromisoformat(job.params["due_date"]),
            **_owing(job),
        )
        return affected(tag)

    async def check_shard(self, tx: Transaction, job: Job, lower: str, upper: str, processed: int) -> None:
        standing: int = await sql.count_contributions_between(
            tx.connection, tenant_id=tx.tenant_id, cycle_id=job.subject_id, cursor=lower, bound=upper
        )
        if standing != processed:
            raise PlanMismatchError(f"{standing} rows stand where {processed} were counted")

    async def on_completed(self, tx: Transaction, job: Job, processed: int) -> Sequence[NewJob]:
        """The cycle turns `Active` with the number of its rows, if it is the one that was planned."""
        if processed != job.total:
            raise PlanMismatchError(f"{processed} rows stand where {job.total} were planned")
        await set_cycle_status(tx, job.subject_id, "Active", total_members=processed)
        return [NewJob("notify_agents_new_cycle", job.subject_id, created_by=job.created_by)]

    async def on_failed(self, tx: Transaction, job: Job, reason: str) -> None:
        await set_cycle_status(tx, job.subject_id, "Failed", reason=reason)

    async def on_cancelled(self, tx: Transaction, job: Job) -> Sequence[NewJob]:
        await set_cycle_status(tx, job.subject_id, "Cancelled")
        return [NewJob("remove_contributions", job.subject_id, created_by=job.created_by)]

    async def on_retried(self, tx: Transaction, job: Job) -> None:
        """A cycle that never heard of the failure is `Initializing` still."""
        cycle = await sql.lock_cycle(tx.connection, tenant_id=tx.tenant_id, cycle_id=job.subject_id)
        if cycle["cycle_status"] != "Initializing":
            await set_cycle_status(tx, job.subject_id, "Initializing")


async def start_cycle(
    engine: Engine, tx: Transaction, new: NewCycle, created_by: UUID, *, strategy: Strategy = "auto", priority: int = 0
) -> tuple[Cycle, bool]:
    """Open a cycle and its job; returns the cycle and whether it is `Active` already.

    `inline` makes every contribution in this transaction, all or nothing; `queued` leaves them to the workers;
    `auto` is inline below `GUTHI_INLINE_BELOW` members. Raises what `open_cycle` raises.
    """
    cycle = await open_cycle(tx, new, created_by)
    if strategy == "auto":
        strategy = strategy_for(engine, strategy, await count_owing_up_to(tx, cycle, engine.settings.inline_below))
    job = await start_job(engine, tx, _job_of(cycle, created_by, priority), ring=strategy == "queued")
    if strategy == "inline":
        await run_inline(engine, tx, job)
    return cycle, strategy == "inline"


def strategy_for(engine: Engine, strategy: Strategy, members: int) -> Strategy:
    """What `start_cycle` does for so many."""
    if strategy != "auto":
        return strategy
    return "inline" if members < engine.settings.inline_below else "queued"


def _job_of(cycle: Cycle, created_by: UUID, priority: int) -> NewJob:
    params = {
        "tier_id": str(cycle["tier_id"]),
        "deceased_member_id": str(cycle["deceased_member_id"]),
        "as_of": cycle["as_of"].isoformat(),
        "contribution_amount": str(cycle["contribution_amount"]),
        "due_date": cycle["deadline"].isoformat(),
    }
    return NewJob(CreateContributions.name, cycle["cycle_id"], params, created_by, priority)


def _owing(job: Job) -> dict[str, Any]:
    """What decides who owes."""
    return {
        "tier_id": UUID(job.params["tier_id"]),
        "deceased_member_id": UUID(job.params["deceased_member_id"]),
        "as_of": datetime.fromisoformat(job.params["as_of"]),
    }


def _text(key: UUID | None) -> str | None:
    return None if key is None else str(key)
