"""What is kept of an error that failed a job, so that an operator understands it and knows what to do."""

from collections.abc import Mapping
from typing import Any

from core.calls import call_of
from core.errors import PlanMismatchError, WorkerDiedError
from db.retriable import is_retriable


def failure_detail(error: Exception, shard: Mapping[str, Any]) -> dict[str, Any]:
    """The columns `shard_no`, `cursor` and `attempts` of `shard` say where. JSON, as the API shows it."""
    call = call_of(error) or ""
    return {
        "errorClass": type(error).__name__,
        "message": str(error),
        "statement": call.removeprefix("sql:") or None,
        "cursor": shard["cursor"],
        "shardNo": shard["shard_no"],
        "attempt": shard["attempts"],
        "retriable": is_retriable(error),
        "advice": _advice(error),
    }


def _advice(error: Exception) -> str:
    """One sentence: can a retry help, and what comes first?"""
    if isinstance(error, WorkerDiedError):
        return (
            "A retry helps once the cause is mended: see in the workers' logs and memory why they died at this cursor."
        )
    if is_retriable(error):
        return "A retry helps once the cause has passed: see that PostgreSQL is well, then retry; no row is lost."
    if isinstance(error, PlanMismatchError):
        return "A retry alone does not help: run `guthi doctor`, and find who changed the job's rows by hand."
    return "A retry alone fails in the same way: mend the rows after this cursor, or the program, and then retry."
