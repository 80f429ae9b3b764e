"""The members' CSV: its header, and the form of its rows. What the fields mean is checked in SQL."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import IO

from core.errors import InvalidInputError

COLUMNS = ("full_name", "gender", "tier", "agent", "phone", "email", "status", "joined_on", "member_number")
REQUIRED = ("full_name", "tier")
CHUNK_LINES = 5_000
CHUNK_CHARACTERS = 2_000_000
LONGEST_ROW = 100_000
LONGEST_FIELD = 500
"""Longer than anything that is right, and short enough for an index."""
# What `surrogateescape` makes of bytes that are not UTF-8, so that their very line can be named.
_NOT_UTF8 = re.compile("[\udc80-\udcff]")

Chunk = dict[str, list[object]]
"""Columns of staged rows: `line_no`, each of COLUMNS (None where empty), `problem`."""


def read_chunks(file: IO[bytes]) -> Iterator[Chunk]:
    """Stream a file in chunks of staged rows, which may be empty; time and memory a chunk have a bound.

    A row with too many or too few fields, or with an endless one, is staged with its problem. Raises
    `InvalidInputError` with the line for what spoils the whole file: no or a wrong header, bytes that are not
    UTF-8, a quote that is not closed, a NUL character.
    """
    text = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")
    lines = _Lines(text)
    rows = csv.reader(lines, strict=True)
    try:
        header = _check_header(next(rows, None))
        yield from _chunks(lines, rows, header)
    except csv.Error as error:
        raise _broken(lines.row_begins, f"the CSV is broken here ({error}): mend the quotes of this row") from None
    finally:
        if not text.closed:  # whoever stopped reading before the end has closed the file, too
            text.detach()


class _Lines:
    """The lines of a file, checked, for `csv.reader`; a row may take several, but not without end."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self._row_characters = 0
        self.number = 0
        self.characters = 0
        self.row_begins = 1

    def begin_row(self) -> None:
        self._row_characters = 0
        self.row_begins = self.number + 1

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._text.readline(LONGEST_ROW + 1)
        if not line:
            raise StopIteration
        self.number += 1
        self.characters += len(line)
        self._row_characters += len(line)
        if self._row_characters > LONGEST_ROW:
            raise _broken(self.row_begins, f"the row is longer than {LONGEST_ROW} characters: is a quote left open?")
        if "\0" in line:
            raise _broken(self.number, "the line holds a NUL character: save the file as UTF-8 and send it again")
        if _NOT_UTF8.search(line):
            raise _broken(self.number, "the line is not UTF-8: save the file as UTF-8 and send it again")
        return line


def _chunks(lines: _Lines, rows: Iterator[list[str]], header: Sequence[str]) -> Iterator[Chunk]:
    chunk, first_line, first_character = _empty_chunk(), lines.number, lines.characters
    lines.begin_row()
    for row in rows:
        if row:
            _stage(chunk, header, lines.row_begins, row)
        lines.begin_row()
        if lines.number - first_line >= CHUNK_LINES or lines.characters - first_character >= CHUNK_CHARACTERS:
            yield chunk
            chunk, first_line, first_character = _empty_chunk(), lines.number, lines.characters
    if chunk["line_no"]:
        yield chunk


def _check_header(header: Sequence[str] | None) -> Sequence[str]:
    expected = f"the first line must name columns of {','.join(COLUMNS)}; {' and '.join(REQUIRED)} are required"
    if not header:
        raise _broken(1, f"the header is missing: {expected}")
    names = [name.strip() for name in header]
    unknown = [name[:50] for name in names if name not in COLUMNS]
    if unknown or len(set(names)) != len(names) or not set(REQUIRED) <= set(names):
        raise _broken(1, expected + (f"; unknown here: {', '.join(unknown[:10])}" if unknown else ""))
    return names


def _stage(chunk: Chunk, header: Sequence[str], line_no: int, row: Sequence[str]) -> None:
    problem = _problem(header, row)
    fields = dict(zip(header, row, strict=True)) if problem is None else {}
    chunk["line_no"].append(line_no)
    for column in COLUMNS:
        chunk[column].append(fields.get(column, "").strip() or None)
    chunk["problem"].append(problem)


def _problem(header: Sequence[str], row: Sequence[str]) -> str | None:
    if len(row) != len(header):
        return f"has {len(row)} fields where the header has {len(header)}"
    too_long = [name for name, field in zip(header, row, strict=True) if len(field) > LONGEST_FIELD]
    return f"has more than {LONGEST_FIELD} characters in {', '.join(too_long)}" if too_long else None


def _empty_chunk() -> Chunk:
    return {name: [] for name in ("line_no", *COLUMNS, "problem")}


def _broken(line: int, reason: str) -> InvalidInputError:
    return InvalidInputError(f"line {line}: {reason}", line=line)
