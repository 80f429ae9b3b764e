"""Every expected failure, as one tree. `code` is what the API shows, `status` its HTTP status.

GuthiError
├── SettingsError                 a GUTHI_* variable is missing or wrong
├── InvalidInputError        422  the request breaks a rule; `context` names the field
│   └── MalformedRequestError 400 the request cannot even be read
├── UnauthorizedError        401  no key, or one that opens nothing
│   └── SessionExpiredError  401  the right key, but its time is over
├── PermissionDeniedError    403  the key's role may not do this
├── UserInactiveError        403  the key's user was deactivated
├── NotFoundError            404  <THING>_NOT_FOUND, also for another tenant's things
├── PathNotFoundError        404  the API has no such path
├── ConflictError            409
│   ├── DuplicateResourceError        a code is taken
│   ├── ConcurrentModificationError   somebody else changed it first
│   ├── InvalidStatusTransitionError  the state map has no such arrow
│   ├── MaintenanceRunningError       somebody else runs it by hand now
│   ├── LastAdminError                nobody could manage the society any more
│   └── IdempotencyKeyInFlightError   the same key is being worked on now
├── IdempotencyKeyMissingError 400
├── IdempotencyKeyReusedError  422  the same key with another request
├── VersionMissingError      428  a change names the version that it is made to
├── RateLimitedError         429  the key has used up its window; waiting helps
├── BodyTooLargeError        413
├── UnavailableError         503  PostgreSQL is away or the pool is exhausted; retrying helps
├── LeaseLostError                another worker holds the shard now (engine only)
├── WorkerDiedError               a batch keeps killing its worker (engine only)
└── PlanMismatchError             the rows made are not the rows planned (engine only)

The design's `STALE_DATA` is for later: it waits for reads that may lag behind, from a replica.
The docstrings of those with a status are the list of codes in docs/reference.md.
"""

from typing import Any, ClassVar, Literal
from uuid import UUID

Thing = Literal["tier", "agent", "member", "cycle", "job", "contribution", "user", "key", "maintenance"]
"""What has ids; each has its own <THING>_NOT_FOUND."""


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
    """The request breaks a rule: `context` names the field, or the `fields`."""

    code = "INVALID_INPUT"
    status = 422


class MalformedRequestError(InvalidInputError):
    """The body cannot even be read."""

    status = 400


class UnauthorizedError(GuthiError):
    """No key, or one that opens nothing: wrong or revoked."""

    code = "UNAUTHORIZED"
    status = 401


class SessionExpiredError(UnauthorizedError):
    """The right key, but its time is over, or it was rotated and its grace period has passed: use the new one."""

    code = "SESSION_EXPIRED"


class PermissionDeniedError(GuthiError):
    """The role of the key's user may not do this: `context` names the role and the permission."""

    code = "INSUFFICIENT_PERMISSIONS"
    status = 403


class UserInactiveError(GuthiError):
    """The key's user was deactivated."""

    code = "USER_INACTIVE"
    status = 403


class NotFoundError(GuthiError):
    """Nothing has this id in this society. `NotFoundError("tier", tier_id)` shows as `TIER_NOT_FOUND`."""

    status = 404

    def __init__(self, thing: Thing, thing_id: UUID | str) -> None:
        super().__init__(
            f"no {thing.replace('_', ' ')} has the id {thing_id}: check the id, or list what there is",
            **{f"{thing}_id": str(thing_id)},
        )
        self.code = f"{thing.upper()}_NOT_FOUND"  # type: ignore[misc]  # the one error whose code has a part of its own


class PathNotFoundError(GuthiError):
    """The API has no such path."""

    code = "PATH_NOT_FOUND"
    status = 404


class ConflictError(GuthiError):
    """The base of all that collides with what is there."""

    status = 409


class DuplicateResourceError(ConflictError):
    """Another one has this code or e-mail address: `context` names the field."""

    code = "DUPLICATE_RESOURCE"


class ConcurrentModificationError(ConflictError):
    """Read the row again and decide anew: `context` holds its present version."""

    code = "CONCURRENT_MODIFICATION"


class InvalidStatusTransitionError(ConflictError):
    """The state map has no such arrow: `context` holds both states."""

    code = "INVALID_STATUS_TRANSITION"

    def __init__(self, thing: str, current: str, wanted: str, how: str = "") -> None:
        super().__init__(f"a {thing} that is {current} cannot become {wanted}{how}", current=current, wanted=wanted)


class MaintenanceRunningError(ConflictError):
    """Somebody is running this maintenance by hand now: wait for its end."""

    code = "MAINTENANCE_RUNNING"


class LastAdminError(ConflictError):
    """At least one active admin must keep a key that does not expire, or nobody could manage the society."""

    code = "LAST_ADMIN"


class IdempotencyKeyInFlightError(ConflictError):
    """The first request with this key is still running: ask again in a moment."""

    code = "IDEMPOTENCY_KEY_IN_FLIGHT"
    retryable = True


class IdempotencyKeyMissingError(GuthiError):
    """A POST that starts work names an `Idempotency-Key`."""

    code = "IDEMPOTENCY_KEY_MISSING"
    status = 400


class IdempotencyKeyReusedError(GuthiError):
    """The key belongs to another request: use a new one for each thing you want."""

    code = "IDEMPOTENCY_KEY_REUSED"
    status = 422


class VersionMissingError(GuthiError):
    """A change names the version that it is made to: `version` in the body, or `If-Match` with the row's ETag."""

    code = "VERSION_MISSING"
    status = 428


class RateLimitedError(GuthiError):
    """The key has used up its window: wait for as long as `Retry-After` says."""

    code = "RATE_LIMITED"
    status = 429
    retryable = True

    def __init__(self, limit: int, window_seconds: int, retry_after: int) -> None:
        super().__init__(
            f"this key may make {limit} requests in {window_seconds} seconds: ask again in {retry_after} seconds",
            limit=limit,
            windowSeconds=window_seconds,
            retryAfter=retry_after,
        )
        self.retry_after = retry_after


class BodyTooLargeError(GuthiError):
    """The body is larger than this call takes."""

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
