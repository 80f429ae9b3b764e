"""Tells each agent who has members in a new cycle how many they are, and how much they owe together."""

from db.database import Transaction
from db.queries import sql
from jobs.engine.model import BatchKind, Job


class NotifyAgentsNewCycle(BatchKind):
    """Keys are agent ids; the subject is the cycle. An agent without members in it is walked, not told."""

    name = "notify_agents_new_cycle"

    async def count(self, tx: Transaction, job: Job, cursor: str) -> int:
        return int(await sql.count_agents(tx.connection, tenant_id=tx.tenant_id, cursor=cursor))

    async def last_key(self, tx: Transaction, job: Job) -> str | None:
        last = await sql.last_agent(tx.connection, tenant_id=tx.tenant_id)
        return None if last is None else str(last)

    async def find_bound(self, tx: Transaction, job: Job, cursor: str, upper: str, rows: int) -> str | None:
        bound = await sql.find_agent(tx.connection, tenant_id=tx.tenant_id, cursor=cursor, upper=upper, skip=rows - 1)
        return None if bound is None else str(bound)

    async def run_batch(self, tx: Transaction, job: Job, cursor: str, bound: str) -> int:
        await sql.avoid_nested_loops(tx.connection)
        walked: int = await sql.notify_agents(
            tx.connection, tenant_id=tx.tenant_id, cycle_id=job.subject_id, cursor=cursor, bound=bound
        )
        return walked
