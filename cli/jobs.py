"""`guthi jobs`: the batch jobs behind cycles and imports: see them, and steer them."""

from itertools import islice
from typing import Annotated, Any
from uuid import UUID

import typer

from cli.client import open_api
from cli.output import JsonOption, print_fields, print_json, print_table

PATH = "/api/jobs"
LOG_LINES = 50

app = typer.Typer(help="Batch jobs: the work behind cycles and imports.", no_args_is_help=True)
JobArgument = Annotated[UUID, typer.Argument(metavar="ID", help="The job's id.")]


@app.command("list")
def list_jobs(
    state: Annotated[str | None, typer.Option(help="Only those that are Queued, Processing, Paused, ...")] = None,
    kind: Annotated[str | None, typer.Option(help="Only one kind: create_contributions, import_members, ...")] = None,
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
        shards = job.pop("shards")
        print_fields(job)
        print()
        names = ("shardNo", "processed", "done", "leased", "attempts", "nextAttemptAt", "error")
        header = ("SHARD", "ROWS", "DONE", "LEASED", "ATTEMPTS", "NEXT ATTEMPT", "ERROR")
        print_table(header, ([shard[name] for name in names] for shard in shards))
        print()
        log = list(islice(api.items(f"{PATH}/{job_id}/log"), LOG_LINES + 1))
        print_table(("AT", "LEVEL", "EVENT", "FIELDS"), map(_log_line, log[:LOG_LINES]))
        if len(log) > LOG_LINES:
            print(f"... more at {api.http.base_url}{PATH.lstrip('/')}/{job_id}/log")


@app.command()
def pause(job_id: JobArgument, as_json: JsonOption = False) -> None:
    """Hold a job: once this returns, it makes no further row until it is resumed."""
    _steer(job_id, "pause", as_json)


@app.command()
def resume(job_id: JobArgument, as_json: JsonOption = False) -> None:
    """Let a paused job go on from where it stood."""
    _steer(job_id, "resume", as_json)


@app.command()
def cancel(job_id: JobArgument, as_json: JsonOption = False) -> None:
    """Give a job up for good; what a cancelled cycle has made is removed."""
    _steer(job_id, "cancel", as_json)


@app.command()
def retry(job_id: JobArgument, as_json: JsonOption = False) -> None:
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
