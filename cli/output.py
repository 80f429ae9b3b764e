"""What commands print: JSON for programs, lines and tables for people, never colours into a pipe."""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, as the API gives it.")]
JsonLinesOption = Annotated[bool, typer.Option("--json", help="Print one JSON object a line, as the API gives it.")]

_STYLES = {"Initializing": "yellow", "Processing": "yellow", "Active": "green", "Completed": "green", "Failed": "red"}
_STYLES |= {"Paused": "steel_blue", "Cancelled": "bright_black", "warning": "yellow", "error": "red"}
# Wide enough for any row: a terminal wraps a long line itself, and what is copied from it stays whole.
_ROW_WIDTH = 2_000


def print_json(value: Any) -> None:
    """One document, indented, ids and times as strings."""
    sys.stdout.buffer.write(orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    sys.stdout.flush()


def print_json_line(value: Any) -> None:
    """One document on one line, seen by whoever reads the pipe at once."""
    sys.stdout.buffer.write(orjson.dumps(value, default=str, option=orjson.OPT_APPEND_NEWLINE))
    sys.stdout.flush()


def in_terminal() -> bool:
    return sys.stdout.isatty()


def print_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Columns in a terminal; elsewhere separated by tabs, as `cut` and `awk` like them."""
    if not in_terminal():
        for row in (header, *rows):
            print("\t".join(plain(value) for value in row))
        return
    table = Table(*header, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(_styled(value) for value in row))
    Console(width=_ROW_WIDTH).print(table)


def print_line(values: Iterable[Any], kind: str = "") -> None:
    """One of a stream of lines, separated by tabs, seen at once; in a terminal in the colour of its `kind`."""
    line = "\t".join(map(plain, values))
    if in_terminal():
        Console(highlight=False).print(Text(line.expandtabs(), style=style_of(kind)), soft_wrap=True)
    else:
        print(line, flush=True)


def print_fields(fields: Mapping[str, Any]) -> None:
    """A line each: `jobStartedAt` is shown as "job started at"."""
    names = [re.sub("([A-Z])", r" \1", name).lower() for name in fields]
    width = max(map(len, names), default=0)
    for name, value in zip(names, fields.values(), strict=True):
        shown = _styled(value) if in_terminal() else Text(plain(value))
        Console(width=_ROW_WIDTH, highlight=False).print(Text(f"{name:<{width}}  "), shown, sep="", soft_wrap=True)


def _styled(value: Any) -> Text:
    if isinstance(value, int) and not isinstance(value, bool):
        return Text(f"{value:,}", justify="right")
    return Text(plain(value), style=style_of(value))


def style_of(value: Any) -> str:
    """The colour of a state or a log level; none for everything else."""
    return _STYLES.get(str(value), "")


def plain(value: Any) -> str:
    """On one line, and without what a terminal would obey."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "".join(character if character.isprintable() else " " for character in str(value))
