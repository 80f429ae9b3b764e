"""Idempotency keys: a repeated request gets the first one's answer, and does nothing.

The answer is stored in the transaction of what it speaks of: both are there, or neither.
"""

from dataclasses import dataclass

from core.errors import IdempotencyKeyInFlightError, IdempotencyKeyReusedError
from db.database import Transaction
from db.queries import sql


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    status_code: int
    location: str | None
    body: str


async def claim_key(tx: Transaction, key: str, request_sha256: bytes) -> StoredAnswer | None:
    """The answer of an earlier request, or None: then the key is this transaction's, until it ends.

    Raises `IdempotencyKeyInFlightError` while another transaction holds the key, and
    `IdempotencyKeyReusedError` when the key belongs to a different request.
    """
    named = {"tenant_id": tx.tenant_id, "idempotency_key": key}
    if not await sql.try_lock_idempotency_key(tx.connection, **named):
        raise IdempotencyKeyInFlightError("the first request with this key is still running: ask again in a moment")
    row = await sql.get_idempotency_key(tx.connection, **named)
    if row is None:
        return None
    if row["request_sha256"] != request_sha256:
        raise IdempotencyKeyReusedError("this key belongs to another request: use a new one for each thing you want")
    return StoredAnswer(row["status_code"], row["location"], row["answer"])


async def store_answer(tx: Transaction, key: str, request_sha256: bytes, answer: StoredAnswer) -> None:
    await sql.insert_idempotency_key(
        tx.connection,
        tenant_id=tx.tenant_id,
        idempotency_key=key,
        request_sha256=request_sha256,
        status_code=answer.status_code,
        location=answer.location,
        answer=answer.body,
    )
