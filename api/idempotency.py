"""`Idempotency-Key` on every POST that starts work: once done, always answered the same."""

import hashlib
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import Depends, Request, Response

from core.errors import IdempotencyKeyMissingError, InvalidInputError
from db.database import Database, Transaction
from domain.api_keys import Caller
from domain.idempotency_keys import StoredAnswer, claim_key, store_answer

HEADER = "Idempotency-Key"
PARAMETER: dict[str, Any] = {
    "parameters": [
        {
            "name": HEADER,
            "in": "header",
            "required": True,
            "description": "A new one for each thing you want; the same one when you ask again because no answer came",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
        }
    ]
}


def _read_key(request: Request) -> str:
    key = request.headers.get(HEADER, "")
    if not key:
        raise IdempotencyKeyMissingError(f"send an {HEADER} header: a new UUID for each thing you want")
    if len(key) > 255 or not all("!" <= character <= "~" for character in key):
        raise InvalidInputError(f"{HEADER} has at most 255 printable ASCII characters, no spaces", field=HEADER)
    return key


IdempotencyKey = Annotated[str, Depends(_read_key)]


async def once(
    database: Database,
    caller: Caller,
    key: str,
    request: Request,
    content_sha256: bytes,
    act: Callable[[Transaction], Awaitable[StoredAnswer]],
) -> Response:
    """Run `act` in one transaction with its stored answer, or replay the answer it gave before."""
    asked = hashlib.sha256(f"{request.method} {request.scope['path']}?".encode("utf-8", "surrogateescape"))
    asked.update(request.scope["query_string"] + b" " + content_sha256)
    async with database.transaction(caller.tenant_id) as tx:
        stored = await claim_key(tx, key, asked.digest())
        if stored is not None:
            return _respond(stored, {"Idempotent-Replayed": "true"})
        stored = await act(tx)
        await store_answer(tx, key, asked.digest(), stored)
    return _respond(stored, {})


def _respond(stored: StoredAnswer, headers: dict[str, str]) -> Response:
    if stored.location:
        headers["Location"] = stored.location
    return Response(stored.body, stored.status_code, headers, "application/json")
