"""`guthi cycles`: start contribution cycles, read them, watch one being created."""

from collections.abc import Iterator
from typing import Annotated, Any
from uuid import UUID, uuid4

import typer

from cli.client import ApiClient, open_api
from cli.completion import cycle_codes, cycle_statuses, tier_codes
from cli.following import end_with_reader, follow, tell
from cli.output import JsonOption, plain, print_fields, print_json, print_json_line, print_table
from cli.progress import Reading, display, display_all
from cli.running import RunningJobs
from core.errors import InvalidInputError
from jobs.create_contributions import CreateContributions, Strategy

PATH = "/api/contribution-cycles"
GOOD = ("Active", "Completed")
CYCLE_OF_JOB = {"Completed": "Active", "Failed": "Failed", "Cancelled": "Cancelled"}
"""What a cycle has become when its job has ended."""

app = typer.Typer(help="Contribution cycles.", no_args_is_help=True)
_CYCLE = typer.Argument(metavar="ID_OR_CODE", help="The cycle's id, or its code.", autocompletion=cycle_codes)
CycleArgument = Annotated[str, _CYCLE]
OptionalCycleArgument = Annotated[str | None, _CYCLE]


@app.command()
def start(
    tier: Annotated[
        str, typer.Option(metavar="CODE_OR_ID", help="The tier whose members owe.", autocompletion=tier_codes)
    ],
    deceased: Annotated[str, typer.Option(metavar="NUMBER_OR_ID", help="The member who has died.")],
    amount: Annotated[str | None, typer.Option(help="What each member owes, if not what the tier says.")] = None,
    benefit: Annotated[str | None, typer.Option(help="What is paid out, if not what the tier says.")] = None,
    days: Annotated[int | None, typer.Option(help="Days until the contributions are due; 15 if not said.")] = None,
    strategy: Annotated[
        Strategy, typer.Option(help="By workers (queued), at once (inline), or by the tier's size (auto).")
    ] = "auto",
    priority: Annotated[int, typer.Option(help="Head start in the queue, in seconds.")] = 0,
    idempotency_key: Annotated[
        str | None, typer.Option(help="Repeat a start with the key it had, and there is still one cycle.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Stay until the cycle is Active.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Start a cycle for a member who has died."""
    with open_api() as api:
        body = {
            "tierId": _find_tier(api, tier),
            "deceasedMemberId": _find_member(api, deceased),
            "contributionAmount": amount,
            "benefitAmount": benefit,
            "durationDays": days,
            "strategy": strategy,
            "priority": priority,
        }
        given = {name: value for name, value in body.items() if value is not None}
        cycle = api.post(PATH, given, idempotency_key=idempotency_key or str(uuid4()))
        if watch:
            _watch(api, cycle, as_json)
        elif as_json:
            print_json(cycle)
        else:
            print(f"{cycle['cycleCode']} is {cycle['cycleStatus']}: cycle {cycle['cycleId']}, job {cycle['jobId']}")


@app.command("list")
def list_cycles(
    status: Annotated[
        str | None,
        typer.Option(help="Only those that are Initializing, Active, Failed, ...", autocompletion=cycle_statuses),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """All cycles, newest first."""
    with open_api() as api:
        cycles = api.items(PATH, status=status)
        if as_json:
            print_json(list(cycles))
            return
        header = ("CODE", "STATUS", "MADE", "MEMBERS", "TARGET", "STARTED", "DEADLINE", "ID")
        names = ("cycleCode", "cycleStatus", "jobProgress", "totalMembers", "targetAmount", "startDate", "deadline")
        rows = ([*(cycle[name] for name in names), cycle["cycleId"]] for cycle in cycles)
        print_table(header, ([*row[:2], f"{row[2]}%", *row[3:]] for row in rows))


@app.command()
def show(cycle: CycleArgument, as_json: JsonOption = False) -> None:
    """Everything about one cycle."""
    with open_api() as api:
        found = _find_cycle(api, cycle)
        (print_json if as_json else print_fields)(found)


@app.command()
def watch(
    cycle: OptionalCycleArgument = None,
    all_: Annotated[bool, typer.Option("--all", help="Every cycle that is being created, and those to come.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Stay with a cycle until it is created. Exit code 0: it is Active; 1: it is Failed or Cancelled; 130: interrupted.

    With --json nothing moves: at the end the cycle is printed as it then is. With --all it stays until it is
    interrupted, and --json prints the cycle's job, one JSON object a line, whenever it changed. Both outlive restarts
    of the API and lost connections.
    """
    if all_ == bool(cycle):
        raise InvalidInputError("name a cycle by its id or code, or say --all")
    with open_api() as api:
        if cycle:
            _watch(api, _find_cycle(api, cycle), as_json)
        else:
            end_with_reader()
            _watch_all(api, as_json)


def _watch(api: ApiClient, cycle: dict[str, Any], as_json: bool) -> None:
    path = f"{PATH}/{cycle['cycleId']}"
    with display(cycle["cycleCode"], silent=as_json) as shown:
        for progress in _changes(api, path):
            done, total = progress["progress"]["processed"], progress["progress"]["total"] or None
            ended = progress["status"] != "Initializing"
            shown(Reading(progress["status"], done, total, ended, progress["estimatedTimeRemaining"]))
    cycle = api.get(path)
    if as_json:
        print_json(cycle)
    else:
        print(_end_of(cycle["cycleCode"], cycle["cycleStatus"], cycle["totalMembers"], cycle["jobError"]))
    if cycle["cycleStatus"] not in GOOD:
        raise typer.Exit(1)


def _changes(api: ApiClient, path: str) -> Iterator[dict[str, Any]]:
    """Each change of a cycle's progress, until it is no longer `Initializing`."""

    def ask() -> Iterator[dict[str, Any]]:
        yield api.get(f"{path}/creation-progress")

    def listen() -> Iterator[dict[str, Any]]:
        return (event.data for event in api.events(f"{path}/creation-progress/stream"))

    for progress in follow(api, ask, listen):
        yield progress
        if progress["status"] != "Initializing":
            return


def _watch_all(api: ApiClient, as_json: bool) -> None:
    """Never returns: it is interrupted."""
    with display_all(silent=as_json) as shown:
        for n, jobs in enumerate(RunningJobs(api).changes()):
            cycles = [job for job in jobs if job["kind"] == CreateContributions.name]
            if n == 0 and not cycles:
                tell("no cycle is being created now: waiting for one")
            for job in cycles:
                if as_json:
                    print_json_line(job)
                    continue
                code, status = plain(job["subjectCode"]), CYCLE_OF_JOB.get(job["state"])
                reading = Reading(status or job["state"], job["processed"], job["total"], bool(status))
                shown(code, reading._replace(seconds_left=job["estimatedTimeRemaining"]))
                if status:
                    print(_end_of(code, status, job["total"] or 0, job["error"]), flush=True)


def _end_of(code: str, status: str, members: int, error: str | None) -> str:
    return f"{code} is {status}" + (f": {plain(error)}" if error else f", {members:,} members")


def _find_cycle(api: ApiClient, wanted: str) -> dict[str, Any]:
    if _is_uuid(wanted):
        cycle: dict[str, Any] = api.get(f"{PATH}/{UUID(wanted)}")
        return cycle
    return _first(api.items(PATH), "cycleCode", wanted, "no cycle has the code")


def _find_tier(api: ApiClient, wanted: str) -> Any:
    if _is_uuid(wanted):
        return wanted
    return _first(api.items("/api/tiers"), "code", wanted, "no tier has the code")["tierId"]


def _find_member(api: ApiClient, wanted: str) -> Any:
    if _is_uuid(wanted):
        return wanted
    found = api.items("/api/members", search=wanted)
    return _first(found, "memberNumber", wanted, "no member has the number")["memberId"]


def _first(items: Iterator[dict[str, Any]], name: str, wanted: str, otherwise: str) -> dict[str, Any]:
    for item in items:
        if item[name] == wanted:
            return item
    raise InvalidInputError(f"{otherwise} {wanted}")


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
