"""The `guthi` command: puts the sub-commands together and turns failures into one line and an exit code.

Exit codes: 0 done; 1 done, and the answer is bad (doctor found something); 2 not done, the line on stderr says why;
130 interrupted; 141 nobody reads the output any more, as with `| head -1`. A command goes into a module of its own and
is registered in `app` below.
"""

import os
import sys

import httpx
import typer
from typer.exceptions import TyperException

from cli import (
    audit,
    counters,
    cycles,
    database,
    dev,
    events,
    jobs,
    maintenance,
    members,
    sequences,
    serve,
    tenants,
    top,
    workers,
)
from cli.following import NO_READER
from core.errors import GuthiError

app = typer.Typer(
    name="guthi",
    help="Contribution cycles of mutual-aid societies. Settings come from GUTHI_* variables and .env.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(dev.dev)
app.command()(serve.api)
app.command()(serve.worker)
app.command()(database.migrate)
app.command()(database.doctor)
app.command()(top.top)
app.command()(workers.workers)
app.add_typer(tenants.app, name="tenants")
app.add_typer(members.app, name="members")
app.add_typer(cycles.app, name="cycles")
app.add_typer(jobs.app, name="jobs")
app.add_typer(maintenance.app, name="maintenance")
app.add_typer(events.app, name="events")
app.add_typer(counters.app, name="counters")
app.add_typer(sequences.app, name="sequences")
app.add_typer(audit.app, name="audit")


def main() -> None:
    """The entry point of the `guthi` script; never returns."""
    try:
        code = app(prog_name="guthi", standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code)
    except BrokenPipeError:
        os._exit(NO_READER)  # without the complaint that flushing at exit would make
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # typer's way with it
            os._exit(NO_READER)
        raise
    except GuthiError as error:
        _fail(str(error))
    except TyperException as error:
        _fail(f"{error.format_message().rstrip('.')}. Try 'guthi --help'.")
    except httpx.TransportError as error:
        _fail(f"the API cannot be reached at {_address(error)}: {error}")
    except typer.Abort:
        sys.exit(130)


def _fail(message: str) -> None:
    print(f"guthi: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def _address(error: httpx.TransportError) -> str:
    url = error.request.url
    return f"{url.scheme}://{url.netloc.decode()}"


if __name__ == "__main__":
    main()
