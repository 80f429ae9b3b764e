"""Every expected failure, as one tree. `code` is what the API shows, `status` its HTTP status.

GuthiError
├── SettingsError                 a GUTHI_* variable is missing or wrong
├── InvalidInputError        422  the request breaks a rule; `context` names the field
│   └── MalformedRequestError 400 the request cannot even be read
├── UnauthorizedError        401  no key, or one that opens nothing
├── PermissionDeniedError    403  the key's role may not do this
├── UserInactiveError        403  the key's user was deactivated
├── NotFoundError            404  <THING>_NOT_FOUND, also for another tenant's things
├── ConflictError            409
│   ├── DuplicateResourceError        a code is taken
│   ├── ConcurrentModificationError   somebody else changed it first
│   ├── InvalidStatusTransitionError  the state map has no such arrow
│   └── IdempotencyKeyInFlightError   the same key is being worked on now
├── IdempotencyKeyMissingError 400
├── IdempotencyKeyReusedError  422  the same key with another request
├── BodyTooLargeError        413
├── UnavailableError         503  PostgreSQL is away or the pool is exhausted; retrying helps
├── LeaseLostError                another worker holds the shard now (engine only)
├── WorkerDiedError               a batch keeps killing its worker (engine only)
└── PlanMismatchError             the rows made are not the rows planned (engine only)
"""

from typing import Any, ClassVar
from uuid import UUID


class GuthiError(Exception):
    """Base of every expected failure. `retryable` says whether trying the same again can help."""

    code: ClassVar[str] = "UNKNOWN_ERROR"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, **context: Any) -> None:
        super().__init__(message)
        self.context = context


class SettingsError(GuthiError):
    """A `GUTHI_*` variable is missing or wrong: nothing was started."""

    code = "INVALID_INPUT"


class InvalidInputError(GuthiError):
    code = "INVALID_INPUT"
    status = 422


class MalformedRequestError(InvalidInputError):
    status = 400


class UnauthorizedError(GuthiError):
    code = "UNAUTHORIZED"
    status = 401


class PermissionDeniedError(GuthiError):
    code = "INSUFFICIENT_PERMISSIONS"
    status = 403


class UserInactiveError(GuthiError):
    code = "USER_INACTIVE"
    status = 403


class NotFoundError(GuthiError):
    """`NotFoundError("tier", tier_id)` shows as `TIER_NOT_FOUND`."""

    status = 404

    def __init__(self, thing: str, thing_id: UUID | str) -> None:
        super().__init__(
            f"no {thing.replace('_', ' ')} has the id {thing_id}: check the id, or list what there is",
            **{f"{thing}_id": str(thing_id)},
        )
        self.code = f"{thing.upper()}_NOT_FOUND"  # type: ignore[misc]  # the one error whose code has a part of its own


class ConflictError(GuthiError):
    status = 409


class DuplicateResourceError(ConflictError):
    code = "DUPLICATE_RESOURCE"


class ConcurrentModificationError(ConflictError):
    """Read the row again and decide anew: `context` holds its present version."""

    code = "CONCURRENT_MODIFICATION"


class InvalidStatusTransitionError(ConflictError):
    code = "INVALID_STATUS_TRANSITION"

    def __init__(self, thing: str, current: str, wanted: str) -> None:
        super().__init__(f"a {thing} that is {current} cannot become {wanted}", current=current, wanted=wanted)


class IdempotencyKeyInFlightError(ConflictError):
    """The first request with this key is still running: ask again in a moment."""

    code = "IDEMPOTENCY_KEY_IN_FLIGHT"
    retryable = True


class IdempotencyKeyMissingError(GuthiError):
    code = "IDEMPOTENCY_KEY_MISSING"
    status = 400


class IdempotencyKeyReusedError(GuthiError):
    code = "IDEMPOTENCY_KEY_REUSED"
    status = 422


class BodyTooLargeError(GuthiError):
    code = "INVALID_INPUT"
    status = 413


class UnavailableError(GuthiError):
    """PostgreSQL is away, or every connection is busy. Nothing was changed; a retry helps."""

    code = "DATABASE_ERROR"
    status = 503
    retryable = True


class LeaseLostError(GuthiError):
    """Another worker holds the shard now, or the job was paused: stop quietly, nothing was written."""

    code = "LEASE_LOST"

    def __init__(self, job_id: UUID, shard_no: int) -> None:
        super().__init__(f"shard {shard_no} of job {job_id} has another holder")
        self.job_id = job_id
        self.shard_no = shard_no


class WorkerDiedError(GuthiError):
    """A shard's lease ran out again and again without progress: its batch kills its worker."""

    code = "WORKER_DIED"

    def __init__(self, attempts: int, cursor: str | None) -> None:
        super().__init__(f"worker died {attempts} times at cursor {cursor or 'start'}")


class PlanMismatchError(GuthiError):
    """The rows that stand are not the rows that were planned: a defect, never a matter of luck."""

    code = "PLAN_MISMATCH"
