"""Cleans up after a cancelled cycle: its contributions are removed batch by batch, like they were made."""

from db.database import Transaction
from db.queries import affected, sql
from jobs.engine.model import BatchKind, Job


class RemoveContributions(BatchKind):
    """Keys are the member ids of the rows that stand; the subject is the cycle."""

    name = "remove_contributions"
    can_cancel = False  # half-removed rows are no state anybody wants

    async def count(self, tx: Transaction, job: Job, cursor: str) -> int:
        return int(
            await sql.count_contributions(tx.connection, tenant_id=tx.tenant_id, cursor=cursor, cycle_id=job.subject_id)
        )

    async def last_key(self, tx: Transaction, job: Job) -> str | None:
        last = await sql.last_contribution(tx.connection, tenant_id=tx.tenant_id, cycle_id=job.subject_id)
        return None if last is None else str(last)

    async def find_bound(self, tx: Transaction, job: Job, cursor: str, upper: str, rows: int) -> str | None:
        bound = await sql.find_contribution(
            tx.connection,
            tenant_id=tx.tenant_id,
            cycle_id=job.subject_id,
            cursor=cursor,
            upper=upper,
            skip=rows - 1,
        )
        return None if bound is None else str(bound)

    async def run_batch(self, tx: Transaction, job: Job, cursor: str, bound: str) -> int:
        tag = await sql.delete_contributions(
            tx.connection, tenant_id=tx.tenant_id, cycle_id=job.subject_id, cursor=cursor, bound=bound
        )
        return affected(tag)
