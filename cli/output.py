"""What commands print: JSON for programs, lines and bars for people, never colours into a pipe."""

import sys
from typing import Any

import orjson


def print_json(value: Any) -> None:
    """One document, indented, ids and times as strings."""
    sys.stdout.buffer.write(orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    sys.stdout.flush()


def in_terminal() -> bool:
    return sys.stdout.isatty()
