"""`guthi jobs`: the batch jobs behind cycles and imports: see them, and steer them."""

from itertools import islice
from typing import Annotated, Any
from uuid import UUID

import typer

from cli.client import open_api
from cli.completion import Completer, job_kinds, job_states, jobs_that
from cli.following import end_with_reader
from cli.job_log import JobLog
from cli.output import (
    JsonLinesOption,
    JsonOption,
    print_fields,
    print_json,
    print_json_line,
    print_line,
    print_table,
)

PATH = "/api/jobs"
LOG_LINES = 50

app = typer.Typer(help="Batch jobs: the work behind cycles and imports.", no_args_is_help=True)


def _job_argument(completer: Completer) -> Any:
    return typer.Argument(metavar="ID", help="The job's id.", autocompletion=completer)


JobArgument = Annotated[UUID, _job_argument(jobs_that())]
UnfinishedJobArgument = Annotated[UUID, _job_argument(jobs_that(unfinished=True))]
PausedJobArgument = Annotated[UUID, _job_argument(jobs_that(state="Paused"))]
FailedJobArgument = Annotated[UUID, _job_argument(jobs_that(state="Failed"))]


@app.command("list")
def list_jobs(
    state: Annotated[
        str | None,
        typer.Option(help="Only those that are Queued, Processing, Paused, ...", autocompletion=job_states),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(help="Only one kind: create_contributions, import_members, ...", autocompletion=job_kinds),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """All jobs, newest first."""
    with open_api() as api:
        jobs = api.items(PATH, state=state, kind=kind)
        if as_json:
            print_json(list(jobs))
            return
        names = ("kind", "state", "percentage", "processed", "total", "attempts", "createdAt", "jobId", "error")
        rows = ([job[name] for name in names] for job in jobs)
        header = ("KIND", "STATE", "DONE", "ROWS", "OF", "ATTEMPTS", "CREATED", "ID", "ERROR")
        print_table(header, ([*row[:2], f"{row[2]}%", *row[3:]] for row in rows))


@app.command()
def show(job_id: JobArgument, as_json: JsonOption = False) -> None:
    """One job with its shards, and how its log begins."""
    with open_api() as api:
        job = api.get(f"{PATH}/{job_id}")
        if as_json:
            print_json(job)
            return
        shards, detail = job.pop("shards"), job.pop("errorDetail")
        print_fields({**job, "allowed": ", ".join(job["allowed"])})
        print()
        if detail is not None:
            print_fields(detail)
            print()
        names = ("shardNo", "processed", "done", "leaseHolder", "attempts", "nextAttemptAt", "error")
        header = ("SHARD", "ROWS", "DONE", "HELD BY", "ATTEMPTS", "NEXT ATTEMPT", "ERROR")
        print_table(header, ([shard[name] for name in names] for shard in shards))
        print()
        log = list(islice(api.items(f"{PATH}/{job_id}/log"), LOG_LINES + 1))
        print_table(("AT", "LEVEL", "EVENT", "FIELDS"), map(_log_line, log[:LOG_LINES]))
        if len(log) > LOG_LINES:
            print(f"... more with: guthi jobs log {job_id}")


@app.command("log")
def show_log(
    job_id: JobArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stay until the job has ended.")] = False,
    as_json: JsonLinesOption = False,
) -> None:
    """What happened to a job, oldest first, a line each.

    With --follow it outlives restarts of the API and lost connections, and tells each line once. Exit code 0: all
    is printed, and with --follow the job has ended, however it did; 130: interrupted.
    """
    end_with_reader()
    with open_api() as api:
        for entry in JobLog(api, job_id).follow() if follow else api.items(f"{PATH}/{job_id}/log"):
            if as_json:
                print_json_line(entry)
            else:
                print_line(_log_line(entry), entry["level"])


@app.command()
def pause(job_id: UnfinishedJobArgument, as_json: JsonOption = False) -> None:
    """Hold a job: once this returns, it makes no further row until it is resumed."""
    _steer(job_id, "pause", as_json)


@app.command()
def resume(job_id: PausedJobArgument, as_json: JsonOption = False) -> None:
    """Let a paused job go on from where it stood."""
    _steer(job_id, "resume", as_json)


@app.command()
def cancel(job_id: JobArgument, as_json: JsonOption = False) -> None:
    """Give a job up for good; what a cancelled cycle has made is removed."""
    _steer(job_id, "cancel", as_json)


@app.command()
def retry(job_id: FailedJobArgument, as_json: JsonOption = False) -> None:
    """Let a failed job go on from where it stood: mend the cause first."""
    _steer(job_id, "retry", as_json)


def _steer(job_id: UUID, verb: str, as_json: bool) -> None:
    with open_api() as api:
        job = api.post(f"{PATH}/{job_id}/{verb}")
    if as_json:
        print_json(job)
    else:
        total = "" if job["total"] is None else f" of {job['total']:,}"
        print(f"{job['kind']} {job['jobId']} is {job['state']} at {job['processed']:,}{total}")


def _log_line(entry: dict[str, Any]) -> tuple[str, ...]:
    fields = ", ".join(f"{name}: {value}" for name, value in entry["fields"].items())
    return (entry["at"], entry["level"], entry["event"], fields)
