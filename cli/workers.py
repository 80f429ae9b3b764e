"""`guthi workers`: who is alive, what each is doing, and how long work waits for them."""

import sys
from typing import Any

import typer

from cli.client import open_api
from cli.output import JsonOption, print_json, print_table

PATH = "/api/workers"


def workers(as_json: JsonOption = False) -> None:
    """Who is alive, and what each is doing. Exit code 1: nobody can say, as Redis is away."""
    with open_api() as api:
        answer = api.get(PATH)
    if as_json:
        print_json(answer)
    else:
        print_workers(answer)
    if answer["redis"] != "ok":
        print("guthi: Redis is away: who works cannot be seen", file=sys.stderr)
        raise typer.Exit(1)


def print_workers(answer: dict[str, Any]) -> None:
    header = ("NAME", "HOST", "PID", "BUSY", "OF", "STARTED", "DOING")
    names = ("name", "host", "pid", "busy", "concurrency", "startedAt")
    rows = ([worker[name] for name in names] for worker in answer["items"])
    doing = (", ".join(map(task_of, worker["running"])) for worker in answer["items"])
    print_table(header, ([*row, what] for row, what in zip(rows, doing, strict=True)))
    print(f"\n{queue_of(answer)}")


def task_of(running: dict[str, Any]) -> str:
    return f"{running['subjectCode'] or running['kind']} shard {running['shardNo']} since {running['since']}"


def queue_of(answer: dict[str, Any]) -> str:
    """How long the queue is, and how long work waited in it."""
    depth = "-" if answer["queueDepth"] is None else f"{answer['queueDepth']:,}"
    depth += " in the queue"
    if (pickup := answer["pickupSeconds"]) is None:
        return depth
    median, p95 = (f"{1_000 * pickup[name]:,.0f} ms" for name in ("median", "p95"))
    return f"{depth}, picked up after {median}, 95 % within {p95}"
