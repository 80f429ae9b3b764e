"""The one place that decides whether trying again can help, by SQLSTATE (PostgreSQL, appendix A)."""

import asyncpg

from core.errors import GuthiError

RETRIABLE_CLASSES = {
    "08": "connection exception: the session is gone, the next one may live",
    "40": "transaction rollback: serialization failure or deadlock, the other one got through",
    "53": "insufficient resources: disk full, out of memory, too many connections; operators mend that",
    "57": "operator intervention: shutdown, crash, cancelled by an administrator or by a timeout",
    "58": "system error outside of PostgreSQL, such as an I/O error",
}
RETRIABLE_STATES = {
    "55P03": "lock not available within lock_timeout",
    "25P03": "idle_in_transaction_session_timeout: this process was frozen for a while",
    "25P04": "transaction_timeout",
}


def is_retriable(error: BaseException) -> bool:
    """Whether the same work may succeed later. Constraint, data and programming errors never do."""
    if isinstance(error, GuthiError):
        return error.retryable
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        return state in RETRIABLE_STATES or state[:2] in RETRIABLE_CLASSES
    # asyncpg's own word for a session that was cut while it was in use.
    if isinstance(error, asyncpg.InterfaceError):
        return "connection" in str(error)
    # The same for one that the server has said goodbye to, when its end is still on the way, or came cut in two.
    return isinstance(error, OSError | TimeoutError | asyncpg.InternalClientError)
