"""Jobs as they change: all unfinished ones of a tenant, or one with its log."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from uuid import UUID

from api.answers import JobSummary, LogEntry
from api.shown_jobs import get_job, show_jobs, with_live_rates
from api.streams import Item, Items, to_event
from db.queries import sql
from jobs.engine.engine import Engine
from jobs.engine.model import TERMINAL, Job
from jobs.engine.progress import CHANNEL, progress_key

GAP_SECONDS = 0.25
OVERLAP = timedelta(seconds=10)
"""Longer than the commit of a job's end comes after the instant that it bears."""
PAGE = 1_000


@dataclass(frozen=True)
class JobsNews:
    """JSON by job: those unfinished, and those that ended since the last news."""

    unfinished: Mapping[UUID, str]
    ended: Mapping[UUID, str]

    def after(self, missed: "JobsNews") -> "JobsNews":
        """An end that was not taken is still to be told, unless the job was taken up again."""
        ended = {job_id: text for job_id, text in missed.ended.items() if job_id not in self.unfinished}
        return JobsNews(self.unfinished, {**ended, **self.ended})

    @cached_property
    def event(self) -> bytes:
        items = ",".join([*self.unfinished.values(), *self.ended.values()])
        return to_event("jobs", f'{{"items":[{items}]}}')


class JobsTopic:
    """Every unfinished job of a tenant, oldest first; each that ended once more, also if it never was among them."""

    gap, is_behind = GAP_SECONDS, False

    def __init__(self, engine: Engine, tenant_id: UUID) -> None:
        self.key: Hashable = ("jobs", tenant_id)
        self.hint = f"{CHANNEL}:{tenant_id}"
        self._engine, self._tenant_id = engine, tenant_id
        self._unfinished: Mapping[UUID, str] | None = None
        self._ended: Mapping[UUID, datetime] = {}
        self._read_at: datetime | None = None

    async def read(self) -> JobsNews | None:
        told = self._unfinished or {}
        async with self._engine.database.transaction(self._tenant_id) as tx:
            asked = {"tenant_id": tx.tenant_id}
            now = (await sql.read_clock(tx.connection)).replace(tzinfo=UTC)
            rows = [row async for row in sql.list_unfinished_jobs(tx.connection, **asked)]
            gone = told.keys() - {row["job_id"] for row in rows}
            since = (self._read_at or now) - OVERLAP
            lately = {
                r["job_id"]: r["completed_at"] async for r in sql.list_ended_jobs(tx.connection, **asked, since=since)
            }
            if self._read_at is not None:  # what ended before anybody watched is not news
                gone |= {job_id for job_id, at in lately.items() if self._ended.get(job_id) != at}
            if gone:
                rows += [row async for row in sql.list_jobs_by_id(tx.connection, **asked, job_ids=list(gone))]
            stored = await show_jobs(self._engine, tx, [Job.from_row(row) for row in rows]) if rows else []
        shown = await with_live_rates(self._engine, self._tenant_id, stored)
        texts = {job.job_id: JobSummary.of_job(job).model_dump_json(by_alias=True) for job in shown}
        ended = {job.job_id: texts.pop(job.job_id) for job in shown if job.state in TERMINAL}
        self._ended, self._read_at = lately, now
        if texts == self._unfinished and not ended:
            return None
        self._unfinished = texts
        return JobsNews(texts, ended)

    def present(self) -> JobsNews | None:
        return None if self._unfinished is None else JobsNews(self._unfinished, {})


@dataclass(frozen=True, slots=True)
class JobNews:
    """Lines of the log, and the job after them; None: it is as it was, or more lines come first."""

    log: Items
    job: bytes | None
    is_final: bool

    def after(self, missed: "JobNews") -> "JobNews":
        return JobNews(self.log.after(missed.log), self.job or missed.job, self.is_final)


class JobTopic:
    """One job, and its log from the entry after `entry_no` on."""

    gap = GAP_SECONDS

    def __init__(self, engine: Engine, job: Job, entry_no: int) -> None:
        self.key: Hashable = ("job", job.tenant_id, job.job_id)
        self.hint = progress_key(job.tenant_id, job.kind, job.subject_id)
        self._engine, self._tenant_id, self._job_id = engine, job.tenant_id, job.job_id
        self._entry_no, self._shown = entry_no, b""
        self._is_final = self.is_behind = False

    async def read(self) -> JobNews | None:
        async with self._engine.database.transaction(self._tenant_id) as tx:
            # The job before its log: what ended it has its line there, committed with it.
            stored = await show_jobs(self._engine, tx, [await get_job(tx, self._job_id)])
        log = await read_log(self._engine, self._tenant_id, self._job_id, self._entry_no)
        (job,) = await with_live_rates(self._engine, self._tenant_id, stored)
        self._entry_no = log[-1].number if log else self._entry_no
        self.is_behind = len(log) == PAGE
        if self.is_behind:
            return JobNews(Items(log), None, is_final=False)
        shown = to_event("job", job.model_dump_json(by_alias=True))
        # Those who come to a job that has ended must hear so, whatever others heard before.
        self._is_final = job.state in TERMINAL
        is_news = shown != self._shown or self._is_final
        self._shown = shown
        return JobNews(Items(log), shown if is_news else None, self._is_final) if is_news or log else None

    def present(self) -> JobNews | None:
        return JobNews(Items(()), self._shown, is_final=False) if self._shown and not self._is_final else None


async def read_log(engine: Engine, tenant_id: UUID, job_id: UUID, after: int) -> list[Item]:
    """The next lines; fewer than a page when there are no more."""
    async with engine.database.transaction(tenant_id) as tx:
        return [
            Item(row["entry_no"], to_event("log", LogEntry.of(row).model_dump_json(by_alias=True), row["entry_no"]))
            async for row in sql.list_job_log(
                tx.connection, tenant_id=tenant_id, job_id=job_id, after=after, limit=PAGE
            )
        ]
