"""What the API answers with, and how rows become it."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Generic, Literal, TypeVar
from uuid import UUID

from fastapi import Response

from api.fields import CycleStatus, Gender, MemberStatus, Out, encode_cursor
from domain.roles import Role
from jobs.engine.model import JobState
from jobs.engine.progress import Progress

Item = TypeVar("Item", bound=Out)
Row = Mapping[str, Any]


class Page(Out, Generic[Item]):
    items: list[Item]
    next: str | None
    """Send it as `after` for the next page; null at the end."""


class Tier(Out):
    tier_id: UUID
    code: str
    name: str
    contribution_amount: Decimal
    benefit_amount: Decimal
    version: int
    created_at: datetime


class Agent(Out):
    agent_id: UUID
    code: str
    name: str
    email: str | None
    version: int
    created_at: datetime


class Member(Out):
    member_id: UUID
    member_number: str | None
    """Null until the member is approved."""
    full_name: str
    gender: Gender
    status: MemberStatus
    status_reason: str | None
    tier_id: UUID
    agent_id: UUID | None
    phone: str | None
    email: str | None
    joined_on: date | None
    """Null until the member is approved."""
    reviewed_at: datetime | None
    approved_at: datetime | None
    died_on: date | None
    version: int
    created_at: datetime
    updated_at: datetime


class User(Out):
    user_id: UUID
    email: str
    name: str
    role: Role
    is_active: bool
    version: int
    created_at: datetime
    updated_at: datetime


class Key(Out):
    key_id: UUID
    user_id: UUID
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    replaced_by: UUID | None
    """The key that it was rotated to."""


class IssuedKey(Key):
    api_key: str
    """Shown in this answer only."""


class Contribution(Out):
    contribution_id: UUID
    member_id: UUID
    member_number: str
    member_name: str
    contribution_amount: Decimal
    contribution_status: str
    due_date: date


class Cycle(Out):
    cycle_id: UUID
    cycle_code: str
    claim_id: UUID | None
    tier_id: UUID
    tier_code: str
    tier_name: str
    deceased_member_id: UUID
    cycle_status: CycleStatus
    contribution_amount: Decimal
    benefit_amount: Decimal
    target_amount: Decimal | None
    """What all contributions come to; null until the members who owe are counted."""
    collected_amount: Decimal
    start_date: date
    deadline: date
    created_at: datetime
    created_by: UUID
    created_by_name: str
    job_id: UUID
    job_status: JobState
    job_progress: int
    """Percent of the contributions that are made."""
    job_started_at: datetime | None
    job_completed_at: datetime | None
    job_error: str | None
    job_rate: float
    """Contributions a second, while they are being made."""
    estimated_time_remaining: int | None
    """Seconds until they are made; null while unknown, 0 at the end."""
    total_members: int
    pending_members: int
    paid_members: int
    failed_members: int
    updated_at: datetime
    version: int

    @classmethod
    def from_row(cls, row: Row, live: Progress | None = None) -> "Cycle":
        """`row` is one of `cycles_with_jobs`. While the cycle is not whole, `total_members` is the plan's.

        `live` is what Redis knows: its rate is that of the last batches, else it is the average since the start.
        """
        counted = row["total_members"] if row["total_members"] is not None else row["job_total"]
        total = counted or 0
        state, processed, rate = JobState(row["job_state"]), row["processed"] or 0, 0.0
        if live is not None and live.state is state:
            rate = live.rate
        elif state is JobState.PROCESSING and row["job_started_at"] is not None:
            rate = processed / max((datetime.now(UTC) - row["job_started_at"]).total_seconds(), 0.001)
        progress = Progress(state, row["job_total"], processed, rate)
        return cls.of(
            {
                **row,
                "target_amount": None if counted is None else row["contribution_amount"] * counted,
                "job_status": progress.state,
                "job_progress": progress.percentage,
                "job_rate": round(rate, 1),
                "estimated_time_remaining": progress.seconds_left,
                "total_members": total,
                "pending_members": total - row["paid_members"] - row["failed_members"],
            }
        )


class ProgressCounts(Out):
    total: int
    processed: int
    percentage: int


class CreationProgress(Out):
    cycle_id: UUID
    status: CycleStatus
    progress: ProgressCounts
    estimated_time_remaining: int | None
    """Seconds; null while unknown, 0 at the end."""


class Shard(Out):
    shard_no: int
    processed: int
    done: bool
    leased: bool
    lease_holder: str | None
    """The worker that has it in hand; null while it is free."""
    lease_expires_at: datetime | None
    attempts: int
    next_attempt_at: datetime | None
    error: str | None
    batch_rows: int | None
    """Keys of its last batch."""
    lower: str | None
    """Its keys are above this, ..."""
    upper: str | None
    """... up to this, ..."""
    cursor: str | None
    """... and done up to this."""

    @classmethod
    def of(cls, row: Row) -> "Shard":
        free = {} if row["leased"] else {"lease_holder": None, "lease_expires_at": None}
        return super().of({**row, **free})


class ErrorDetail(Out):
    error_class: str
    message: str
    statement: str | None
    """The query that the error came out of."""
    cursor: str | None
    """The last key done before it."""
    shard_no: int
    attempt: int
    retriable: bool
    """Whether it was one that goes by itself; it was tried again, and came again."""
    advice: str
    """Whether a retry can help, and what to do first."""


Verb = Literal["pause", "resume", "cancel", "retry"]


class BatchJob(Out):
    job_id: UUID
    kind: str
    subject_id: UUID
    subject_code: str | None
    """The cycle's code; null when the job works for something else."""
    state: JobState
    priority: int
    total: int | None
    processed: int
    percentage: int
    rate: float
    """Keys a second: over the last batches while it runs, 0 when it does not."""
    estimated_time_remaining: int | None
    attempts: int
    error: str | None
    error_detail: ErrorDetail | None
    created_by: UUID | None
    created_by_name: str | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    allowed: list[Verb]
    """What may be asked of it as it is now."""
    can_retry: bool
    shards: list[Shard]


class ShardSummary(Out):
    shard_no: int
    processed: int
    done: bool
    leased: bool
    lease_holder: str | None


class JobSummary(Out):
    """A job as a list of many shows it."""

    job_id: UUID
    kind: str
    subject_id: UUID
    subject_code: str | None
    state: JobState
    processed: int
    total: int | None
    percentage: int
    rate: float
    estimated_time_remaining: int | None
    created_by: UUID | None
    created_by_name: str | None
    created_at: datetime
    started_at: datetime | None
    shards: list[ShardSummary]
    allowed: list[Verb]
    error: str | None

    @classmethod
    def of_job(cls, job: BatchJob) -> "JobSummary":
        shards = [ShardSummary.of(vars(shard)) for shard in job.shards]
        return cls.of({**vars(job), "shards": shards})


class Rate(Out):
    at: datetime
    processed: int
    rows_per_second: float
    """Since the point before."""


class Rates(Out):
    items: list[Rate]


class Event(Out):
    position: int | None
    """Place in the feed; null only in a cycle's own list, for the first seconds."""
    event_id: UUID
    event_type: str
    aggregate_type: str
    aggregate_id: UUID
    version: int
    """The one that the record has after the change: an aggregate's events are numbered 1, 2, 3, ..."""
    payload_version: int
    payload: dict[str, Any]
    """What the change set."""
    created_by: UUID | None
    """The user who caused it; null for the system itself."""
    created_at: datetime


class Notice(Out):
    position: int
    kind: Literal["cycle_ready", "cycle_failed", "cycle_cancelled"]
    cycle_id: UUID
    cycle_code: str
    total_members: int | None
    reason: str | None
    at: datetime


class LogEntry(Out):
    entry_no: int
    at: datetime
    level: str
    event: str
    fields: dict[str, Any]


class AuditEntry(Out):
    entry_id: UUID
    at: datetime
    table: str
    record_id: str | None
    """Null for an entry that speaks of many new rows."""
    operation: str
    row_count: int
    old_values: dict[str, Any] | None
    new_values: dict[str, Any] | None
    """Of the changed columns alone; of many new rows the first and the last id."""
    user_id: UUID | None
    key_id: UUID | None
    request_id: str | None
    address: str | None
    job: str | None
    """Kind and id of the job that made the change."""
    database_role: str
    position: int | None
    """Place in the month's chain."""


def answer(body: Out, status: int = 200, **headers: str) -> Response:
    """Serialised once: FastAPI would check the model a second time on its way out."""
    return Response(body.model_dump_json(by_alias=True), status, headers, "application/json")


def page_of(model: type[Item], rows: Sequence[Row], limit: int, key: str) -> Response:
    """A page from `limit + 1` rows: the one too many tells that there is a next page."""
    return paged([model.of(row) for row in rows[:limit]], rows, limit, key)


def paged(items: Sequence[Item], rows: Sequence[Row], limit: int, key: str) -> Response:
    following = encode_cursor(rows[limit - 1][key]) if len(rows) > limit else None
    return answer(Page[Any](items=list(items), next=following))
