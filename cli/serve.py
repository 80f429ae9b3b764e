"""`guthi api` and `guthi worker`: the two long-running processes, each in the foreground until SIGTERM."""

from typing import Annotated

import typer

from core.settings import load_settings

# Streams of progress never end by themselves: after this they are cut, and browsers reconnect elsewhere.
DRAIN_SECONDS = 5


def api(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port to listen on.")] = 8000,
) -> None:
    """Serve the HTTP API; run as many as you like."""
    import uvicorn

    from api.app import app_from_environment

    # No log configuration of its own: the application sends uvicorn's lines where it sends all others.
    uvicorn.run(
        app_from_environment(),
        host=host,
        port=port,
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )


def worker() -> None:
    """Run batch jobs and the cron table; run as many as you like."""
    from worker.main import run

    run(load_settings())
