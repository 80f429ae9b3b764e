"""What a batch job is: its states, its row, and what a kind of job has to say for itself.

A kind is a small class beside its queries. The engine walks the kind's keys in order, a batch at a time,
and calls it inside transactions that are already the tenant's.
"""

import enum
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Self
from uuid import UUID

from core.errors import InvalidStatusTransitionError
from db.database import Transaction


class JobState(enum.StrEnum):
    QUEUED = "Queued"
    PROCESSING = "Processing"
    PAUSED = "Paused"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


RUNNABLE = frozenset({JobState.QUEUED, JobState.PROCESSING})
TERMINAL = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})

BEGINS: Mapping[JobState, str] = {JobState.QUEUED: "somebody, or another job, started it"}
TRANSITIONS: Mapping[tuple[JobState, JobState], str] = {
    (JobState.QUEUED, JobState.PROCESSING): "a runner took the first lease",
    (JobState.QUEUED, JobState.PAUSED): "an operator holds it back before it begins",
    (JobState.QUEUED, JobState.CANCELLED): "an operator does not want it after all",
    (JobState.QUEUED, JobState.FAILED): "a runner died again and again right after a retry or a resume",
    (JobState.PROCESSING, JobState.COMPLETED): "the last shard ended and the rows were counted",
    (JobState.PROCESSING, JobState.FAILED): "an error that no retry helps, or too many without progress",
    (JobState.PROCESSING, JobState.PAUSED): "an operator stops it where it stands",
    (JobState.PROCESSING, JobState.CANCELLED): "an operator gives it up",
    (JobState.PAUSED, JobState.QUEUED): "an operator lets it go on from its cursors",
    (JobState.PAUSED, JobState.CANCELLED): "an operator gives it up",
    (JobState.FAILED, JobState.QUEUED): "an operator retries it from its cursors, the cause being mended",
    (JobState.FAILED, JobState.CANCELLED): "an operator gives it up instead of retrying",
}


def check_transition(current: JobState, wanted: JobState) -> None:
    """Raises `InvalidStatusTransitionError` when the map has no such arrow."""
    if (current, wanted) not in TRANSITIONS:
        raise InvalidStatusTransitionError("job", current, wanted)


@dataclass(frozen=True, slots=True)
class NewJob:
    """What to start: `params` must be JSON. A subject has at most one job of a kind."""

    kind: str
    subject_id: UUID
    params: Mapping[str, Any] = field(default_factory=dict)
    created_by: UUID | None = None
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """A row of `batch_jobs` as it was when it was read."""

    tenant_id: UUID
    job_id: UUID
    kind: str
    subject_id: UUID
    params: Mapping[str, Any]
    state: JobState
    priority: int
    total: int | None
    attempts: int
    error: str | None
    error_detail: Mapping[str, Any] | None
    created_by: UUID | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    version: int
    updated_at: datetime
    trace_context: str | None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Columns that a later version has added do not trouble this one."""
        return cls(**{**{name: row[name] for name in cls.__slots__}, "state": JobState(row["state"])})


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write for one shard, until it runs out or somebody takes it away.

    `attempt` counts from 1 since the shard's last progress.
    """

    job: Job
    shard_no: int
    token: UUID
    shard_count: int
    attempt: int


class BatchKind(ABC):
    """One kind of batch job. A key is text here; the kind's queries cast it to what it is.

    The queries see the same keys whenever they are asked: what decides them is fixed in `job.params`.
    """

    name: ClassVar[str]
    one_shard: ClassVar[bool] = False
    """Whether its batches must follow each other, as when they take numbers from one counter."""
    can_cancel: ClassVar[bool] = True
    planned_anew: ClassVar[bool] = True
    """Whether its batches' statements are, see `Transaction`; not where they check foreign keys by the row."""
    lowest: ClassVar[str] = str(UUID(int=0))
    """Below every key."""
    highest: ClassVar[str] = str(UUID(int=2**128 - 1))
    """Not below any key."""

    @abstractmethod
    async def count(self, tx: Transaction, job: Job, cursor: str) -> int:
        """How many keys there are after `cursor`."""

    @abstractmethod
    async def last_key(self, tx: Transaction, job: Job) -> str | None:
        """The last of the keys; None when there are none."""

    @abstractmethod
    async def find_bound(self, tx: Transaction, job: Job, cursor: str, upper: str, rows: int) -> str | None:
        """The key that is `rows` keys after `cursor` and not above `upper`; None when fewer remain."""

    @abstractmethod
    async def run_batch(self, tx: Transaction, job: Job, cursor: str, bound: str) -> int:
        """Do the work for `cursor < key <= bound` in one transaction; returns the keys it walked.

        It runs exactly once for every key, as cursor and rows commit together.
        """

    async def check_shard(  # noqa: B027 (nothing to check is fine)
        self, tx: Transaction, job: Job, lower: str, upper: str, processed: int
    ) -> None:
        """A shard is walked: hold `processed` against the rows that stand for its keys. Raise to fail the job."""

    async def on_completed(self, tx: Transaction, job: Job, processed: int) -> Sequence[NewJob]:
        """All keys are walked. Raise to fail the job; what is returned is started in the same transaction."""
        return ()

    async def on_failed(self, tx: Transaction, job: Job, reason: str) -> None:  # noqa: B027 (doing nothing is fine)
        """The job turns `Failed`; the rows already made stay. If this raises, the job is `Failed` without it."""

    async def on_cancelled(self, tx: Transaction, job: Job) -> Sequence[NewJob]:
        """The job turns `Cancelled`; what is returned cleans up after it."""
        return ()

    async def on_retried(self, tx: Transaction, job: Job) -> None:  # noqa: B027 (as above)
        """An operator takes the failed job up again."""
