"""`guthi members`: bring members in from a CSV, and see which rows were refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer

from cli.client import ApiClient, open_api
from cli.output import JsonOption, plain, print_json
from cli.progress import Reading, Show, display, follow
from core.errors import InvalidInputError

CHUNK_BYTES = 65_536
KIB = 1_024
JOB_ENDS = ("Completed", "Failed", "Cancelled")

app = typer.Typer(help="Members.", no_args_is_help=True)
File = Annotated[
    Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="A CSV; its first line names the columns.")
]


@app.callback()
def _group() -> None:
    """Keeps `import` a sub-command while it is the only one."""


@app.command("import")
def import_file(
    file: File,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check every row and make no member.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring members in from a CSV. Exit code 1: rows were refused, or the import did not end well.

    Columns: full_name, gender, tier, agent, phone, email, status, joined_on, member_number; full_name and tier
    are required. A refused row is shown with its line, its column and the reason, and stops nothing else.
    """
    with open_api() as api:
        job = _send(api, file, dry_run, as_json)
        if not as_json:
            print(f"job {job['jobId']}", flush=True)
        job = _follow(api, job, as_json)
        problems, lines = [], set()
        for problem in _problems(api, job):
            lines.add(problem["line"])
            if as_json:
                problems.append(problem)
            else:
                print(f"line {problem['line']}, {problem['column']}: {plain(problem['reason'])}")
    good, refused = job["processed"] - len(lines), len(lines)
    if as_json:
        print_json({"job": job, "dryRun": dry_run, "good": good, "refused": refused, "problems": problems})
    else:
        print(
            f"{good:,} rows are good, {refused:,} refused"
            if dry_run
            else f"{good:,} members made, {refused:,} rows refused"
        )
        if job["state"] != "Completed":
            print(f"the import is {job['state']}" + (f": {plain(job['error'])}" if job["error"] else ""))
    if refused or job["state"] != "Completed":
        raise typer.Exit(1)


def _send(api: ApiClient, file: Path, dry_run: bool, silent: bool) -> dict[str, Any]:
    with display(f"{file.name} (KiB)", silent=silent) as show:
        job: dict[str, Any] = api.post_csv(
            "/api/members/import",
            lambda: _chunks(file, show),
            idempotency_key=str(uuid4()),
            dryRun="true" if dry_run else "false",
        )
    return job


def _chunks(file: Path, show: Show) -> Iterator[bytes]:
    sent = 0
    try:
        with file.open("rb") as content:
            size = file.stat().st_size
            while chunk := content.read(CHUNK_BYTES):
                yield chunk
                sent += len(chunk)
                show(Reading("sending" if sent < size else "sent", sent // KIB, size // KIB or None, sent >= size))
    except OSError as error:
        raise InvalidInputError(f"{file} cannot be read: {error.strerror}") from None


def _follow(api: ApiClient, job: dict[str, Any], silent: bool) -> dict[str, Any]:
    """The job as it is when it has ended."""

    def read() -> Reading:
        nonlocal job
        job = api.get(f"/api/jobs/{job['jobId']}")
        ended = job["state"] in JOB_ENDS
        return Reading(job["state"], job["processed"], job["total"], ended, job["estimatedTimeRemaining"])

    follow("rows", read, silent=silent)
    return job


def _problems(api: ApiClient, job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """In the order of the file: `line`, `column`, `reason`; a row may have several."""
    for entry in api.items(f"/api/jobs/{job['jobId']}/log"):
        if entry["event"] == "row_rejected":
            yield entry["fields"]
