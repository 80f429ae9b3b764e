"""The members' CSV: its header, and the form of its rows. What the fields mean is checked in SQL."""

import csv
import io
from collections.abc import Iterator, Sequence
from typing import IO

from core.errors import InvalidInputError

COLUMNS = ("full_name", "gender", "tier", "agent", "phone", "email", "status", "joined_on", "member_number")
REQUIRED = ("full_name", "tier")
CHUNK_ROWS = 5_000

Chunk = dict[str, list[object]]
"""Columns of staged rows: `line_no`, each of COLUMNS (None where empty), `problem`."""


def read_chunks(file: IO[bytes]) -> Iterator[Chunk]:
    """Stream a file in chunks of staged rows; memory stays flat whatever its length.

    A row of the wrong length is staged with its problem. Raises `InvalidInputError` with the line for what
    spoils the whole file: no or a wrong header, bytes that are not UTF-8, an unclosed quote, a NUL character.
    """
    text = io.TextIOWrapper(file, "utf-8-sig", newline="")
    rows = csv.reader(text, strict=True)
    try:
        header = _check_header(next(rows, None))
        chunk = _empty_chunk()
        line_no = rows.line_num + 1
        for row in rows:
            if row:
                _stage(chunk, header, line_no, row)
            if len(chunk["line_no"]) == CHUNK_ROWS:
                yield chunk
                chunk = _empty_chunk()
            line_no = rows.line_num + 1
        if chunk["line_no"]:
            yield chunk
    except UnicodeDecodeError:
        raise _broken(rows.line_num + 1, "the file is not UTF-8: save it as UTF-8 and send it again") from None
    except csv.Error as error:
        raise _broken(rows.line_num, f"the CSV is broken: {error}") from None
    finally:
        text.detach()


def _check_header(header: Sequence[str] | None) -> Sequence[str]:
    expected = f"the first line must name columns of {','.join(COLUMNS)}; {' and '.join(REQUIRED)} are required"
    if not header:
        raise _broken(1, f"the file is empty: {expected}")
    names = [name.strip() for name in header]
    unknown = [name[:50] for name in names if name not in COLUMNS]
    if unknown or len(set(names)) != len(names) or not set(REQUIRED) <= set(names):
        raise _broken(1, expected + (f"; unknown here: {', '.join(unknown)}" if unknown else ""))
    return names


def _stage(chunk: Chunk, header: Sequence[str], line_no: int, row: Sequence[str]) -> None:
    if any("\0" in field for field in row):
        raise _broken(line_no, "the file holds a NUL character")
    fits = len(row) == len(header)
    fields = dict(zip(header, row, strict=True)) if fits else {}
    chunk["line_no"].append(line_no)
    for column in COLUMNS:
        chunk[column].append(fields.get(column, "").strip() or None)
    chunk["problem"].append(None if fits else f"has {len(row)} fields where the header has {len(header)}")


def _empty_chunk() -> Chunk:
    return {name: [] for name in ("line_no", *COLUMNS, "problem")}


def _broken(line: int, reason: str) -> InvalidInputError:
    return InvalidInputError(f"line {line}: {reason}", line=line)
