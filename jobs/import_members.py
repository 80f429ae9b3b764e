"""Brings members in from a CSV: staged as it came, checked set-based, inserted batch by batch.

A bad row is reported in the job's log with line, column and reason, and stops nothing else.
"""

import asyncio
from collections.abc import Sequence
from typing import IO
from uuid import UUID

from db.database import Transaction
from db.queries import sql
from domain.member_csv import read_chunks
from jobs.engine.engine import Engine, start_job
from jobs.engine.model import BatchKind, Job, NewJob


class ImportMembers(BatchKind):
    """Keys are the file's lines; the subject is the import. `processed` counts good and bad rows alike."""

    name = "import_members"
    planned_anew = False
    lowest, highest = "0", str(2**62)
    one_shard = True  # its batches take numbers from the same counters, so they would only wait for each other

    async def count(self, tx: Transaction, job: Job, cursor: str) -> int:
        return int(
            await sql.count_import_rows(
                tx.connection, tenant_id=tx.tenant_id, cursor=int(cursor), import_id=job.subject_id
            )
        )

    async def last_key(self, tx: Transaction, job: Job) -> str | None:
        last = await sql.last_import_row(tx.connection, tenant_id=tx.tenant_id, import_id=job.subject_id)
        return None if last is None else str(last)

    async def find_bound(self, tx: Transaction, job: Job, cursor: str, upper: str, rows: int) -> str | None:
        bound = await sql.find_import_row(
            tx.connection,
            tenant_id=tx.tenant_id,
            import_id=job.subject_id,
            cursor=int(cursor),
            upper=int(upper),
            skip=rows - 1,
        )
        return None if bound is None else str(bound)

    async def run_batch(self, tx: Transaction, job: Job, cursor: str, bound: str) -> int:
        rows = {
            "tenant_id": tx.tenant_id,
            "import_id": job.subject_id,
            "cursor": int(cursor),
            "bound": int(bound),
        }
        await sql.avoid_sequential_scans(tx.connection)
        walked: int = await sql.count_import_range(tx.connection, **rows)
        await sql.lock_member_numbers(tx.connection, tenant_id=tx.tenant_id)
        await sql.reject_import_rows(tx.connection, job_id=job.job_id, **rows)
        if not job.params["dry_run"]:
            _ = [row async for row in sql.lock_import_tiers(tx.connection, **rows)]
            await sql.move_counters(tx.connection, **rows)
            await sql.insert_imported_members(tx.connection, created_by=job.created_by, **rows)
            await sql.delete_import_rows(tx.connection, **rows)
        return walked

    async def on_completed(self, tx: Transaction, job: Job, processed: int) -> Sequence[NewJob]:
        await self._forget(tx, job)
        return ()

    async def on_cancelled(self, tx: Transaction, job: Job) -> Sequence[NewJob]:
        """Members already made stay: they may owe by now. The rest of the file is forgotten."""
        await self._forget(tx, job)
        return ()

    async def _forget(self, tx: Transaction, job: Job) -> None:
        await sql.forget_import(tx.connection, tenant_id=tx.tenant_id, import_id=job.subject_id)


async def start_import(engine: Engine, tx: Transaction, file: IO[bytes], created_by: UUID, *, dry_run: bool) -> Job:
    """Stage a CSV and start its job. Raises `InvalidInputError` for a file that cannot be read, staging nothing.

    A dry run checks and reports every row, and makes no member.
    """
    import_id: UUID = await sql.new_import_id(tx.connection)
    chunks = read_chunks(file)
    while chunk := await asyncio.to_thread(next, chunks, None):
        await sql.stage_import_rows(tx.connection, tenant_id=tx.tenant_id, import_id=import_id, **chunk)
    new = NewJob(ImportMembers.name, import_id, {"dry_run": dry_run}, created_by)
    return await start_job(engine, tx, new)
