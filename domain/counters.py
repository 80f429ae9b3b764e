"""Numbers without gaps: taken in the transaction of the row that carries them, per tenant.

A counter is named after what its codes begin with, so a code is always `name-number`.
"""

from db.database import Transaction
from db.queries import sql


async def next_code(tx: Transaction, name: str, digits: int) -> str:
    """`next_code(tx, "CC-2025", 5)` is `CC-2025-00015`. Rolled back, the number is free again."""
    number: int = await sql.next_number(tx.connection, tenant_id=tx.tenant_id, name=name)
    return f"{name}-{number:0{digits}d}"
