"""Numbers without gaps: taken in the transaction of the row that carries them, per tenant.

A counter is named after what its codes begin with, so a code is always `name-number`.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from db.database import Connection, Transaction
from db.queries import sql


async def next_code(tx: Transaction, name: str, digits: int) -> str:
    """`next_code(tx, "CC-2025", 5)` is `CC-2025-00015`. Rolled back, the number is free again."""
    number: int = await sql.next_number(tx.connection, tenant_id=tx.tenant_id, name=name)
    return f"{name}-{number:0{digits}d}"


async def init_counters(
    connection: Connection, tenant_id: UUID, *, dry_run: bool = False
) -> Sequence[Mapping[str, Any]]:
    """Bring a tenant's counters in line with the codes that stand, for data that came with its own.

    Each goes to the highest number in use, never back; what nobody has up to there is `skipped`. A row for each
    counter says what it was, what it is, and whether it was `changed`. Beside live traffic it waits for those who
    hold a number, and they wait for it. A second run changes nothing; a dry run changes nothing either.
    """
    transaction = connection.transaction()
    await transaction.start()
    try:
        # In the order that an import takes its locks.
        await sql.lock_member_numbers(connection, tenant_id=tenant_id)
        await sql.make_missing_counters(connection, tenant_id=tenant_id)
        _ = [row async for row in sql.lock_counters(connection, tenant_id=tenant_id)]
        rows = [row async for row in sql.init_counters(connection, tenant_id=tenant_id)]
    except BaseException:
        await transaction.rollback()
        raise
    await (transaction.rollback() if dry_run else transaction.commit())
    return rows
