"""The form of a members' CSV: what is read, what spoils one row, what spoils the file."""

import io
import itertools
from typing import Any

import pytest

from core.errors import InvalidInputError
from domain.member_csv import CHUNK_CHARACTERS, CHUNK_LINES, LONGEST_FIELD, LONGEST_ROW, read_chunks

HEADER = b"full_name,tier\n"


def rows(content: bytes) -> list[tuple[Any, ...]]:
    """Line, name, tier and problem of each staged row."""
    return [
        row
        for chunk in read_chunks(io.BytesIO(content))
        for row in zip(chunk["line_no"], chunk["full_name"], chunk["tier"], chunk["problem"], strict=True)
    ]


def complaint(content: bytes) -> tuple[int, str]:
    with pytest.raises(InvalidInputError) as caught:
        rows(content)
    return caught.value.context["line"], str(caught.value)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_any_line_end_with_or_without_a_mark(end: bytes, mark: bytes) -> None:
    content = mark + end.join([b"full_name,tier", "राम,A".encode(), b" Sita , B "])
    assert rows(content) == rows(content + end) == [(2, "राम", "A", None), (3, "Sita", "B", None)]


def test_columns_come_in_any_order_and_what_is_empty_is_none() -> None:
    (chunk,) = read_chunks(io.BytesIO(b" tier , member_number,full_name\nA,,Ram\n"))
    assert (chunk["tier"], chunk["member_number"], chunk["full_name"], chunk["agent"]) == (
        ["A"],
        [None],
        ["Ram"],
        [None],
    )


def test_a_row_has_the_line_on_which_it_begins() -> None:
    content = HEADER + b'"Ram\nBahadur",A\n\n"Si""ta","A,B"\nHari,A'
    assert rows(content) == [(2, "Ram\nBahadur", "A", None), (5, 'Si"ta', "A,B", None), (6, "Hari", "A", None)]


def test_a_row_of_the_wrong_length_stops_nothing() -> None:
    assert rows(HEADER + b"Ram\nSita,A\nHari,A,B\n") == [
        (2, None, None, "has 1 fields where the header has 2"),
        (3, "Sita", "A", None),
        (4, None, None, "has 3 fields where the header has 2"),
    ]


def test_a_field_without_end_stops_nothing() -> None:
    assert rows(HEADER + b"x" * (LONGEST_FIELD + 1) + b",A\n" + b"x" * LONGEST_FIELD + b",A\n") == [
        (2, None, None, "has more than 500 characters in full_name"),
        (3, "x" * LONGEST_FIELD, "A", None),
    ]


@pytest.mark.parametrize(
    ("content", "line", "says"),
    [
        (b"", 1, "header is missing"),
        (b"\n\n", 1, "header is missing"),
        (b"full_name\n", 1, "full_name and tier are required"),
        (b"full_name,tier,tier\n", 1, "must name columns"),
        (b"full_name,tier,shoe,hat\n", 1, "unknown here: shoe, hat"),
        ("\ufeff\ufefffull_name,tier\n".encode(), 1, "unknown here"),
        ("full_name,tier\n".encode("utf-16"), 1, "UTF-8"),
        (HEADER + b"a,A\n" * 9_000 + b"\xe0\xa4,A\n" + b"a,A\n" * 9_000, 9_002, "UTF-8"),
        (HEADER + b"\xed\xa0\x80,A\n", 2, "UTF-8"),
        (HEADER + b"a,A\nb\0,A\n", 3, "NUL"),
        (HEADER + b'a,A\nb,"A\nc,A\n', 3, "quotes"),
        (HEADER + b'a,A\n"b"c,A\n', 3, "quotes"),
        (HEADER + b"a,A\n" + b"x" * LONGEST_ROW + b",A\n", 3, "longer than"),
        (HEADER + b'a,A\n"' + b"b,A\n" * LONGEST_ROW, 3, "quote left open"),
        (HEADER + b"a,A\n" + b'"\n",' * LONGEST_ROW, 3, "longer than"),
    ],
)
def test_what_spoils_the_file_is_told_with_its_line(content: bytes, line: int, says: str) -> None:
    found, detail = complaint(content)
    assert (found, detail.startswith(f"line {line}: ")) == (line, True)
    assert says in detail


def test_the_file_stays_open_for_whoever_brought_it() -> None:
    file = io.BytesIO(HEADER + b"Ram,A\n")
    list(read_chunks(file))
    assert not file.closed


def test_who_stops_in_the_middle_may_close_the_file_first() -> None:
    file = io.BytesIO(HEADER + b"Ram,A\n" * 2 * CHUNK_LINES)
    chunks = read_chunks(file)
    next(chunks)
    file.close()
    chunks.close()


class _Endless(io.RawIOBase):
    """A header, then the same line for ever."""

    def __init__(self, line: bytes) -> None:
        self._bytes = itertools.chain(HEADER, itertools.cycle(line))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        buffer[:] = bytes(itertools.islice(self._bytes, len(buffer)))
        return len(buffer)


@pytest.mark.parametrize("line", [b"\n", b"a,A\n", b"x" * 50_000 + b",A\n"])
def test_a_chunk_has_a_bound_whatever_the_file_holds(line: bytes) -> None:
    """Nobody waits for ever for the first one, and none holds more than its share."""
    chunks = read_chunks(io.BufferedReader(_Endless(line)))
    for _ in range(2):
        chunk = next(chunks)
        assert len(chunk["line_no"]) <= CHUNK_LINES
        assert sum(len(str(name)) for name in chunk["full_name"]) <= CHUNK_CHARACTERS + LONGEST_ROW
