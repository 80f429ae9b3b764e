"""`guthi members import` against a real API and a real worker: what became a member, and what was refused."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest

from cli.client import ApiClient
from cli.members import CHUNK_BYTES, _chunks
from cli.progress import Reading
from tests.shell import ESCAPE, Shell
from tests.support import Society, Worker

GOOD = "full_name,tier,gender\n" + "".join(f"सीता {n},A,F\n" for n in range(1_000))
BAD = GOOD + 'Ram,"Z\x1b[31m",M\nHari,A,X\n,Q,F\n'
REFUSED = [(1_002, "tier"), (1_003, "gender"), (1_004, "full_name"), (1_004, "tier")]


async def members_of(owner: asyncpg.Connection, society: Society) -> int:
    count: int = await owner.fetchval("SELECT count(*) FROM members WHERE tenant_id = $1", society.tenant_id)
    return count


async def test_bad_rows_are_shown_and_the_good_ones_are_members(
    shell: Shell, tmp_path: Path, start_worker: Callable[..., Worker], owner: asyncpg.Connection, society: Society
) -> None:
    (tmp_path / "good.csv").write_text(GOOD)
    (tmp_path / "bad.csv").write_text(BAD)
    before = await members_of(owner, society)
    start_worker()

    checked = await shell.run("members", "import", str(tmp_path / "bad.csv"), "--dry-run")
    assert (checked.code, checked.out.splitlines()[-1]) == (1, "1,000 rows are good, 3 refused")
    assert await members_of(owner, society) == before

    partly = await shell.run("members", "import", str(tmp_path / "bad.csv"))
    assert (partly.code, partly.err) == (1, "")
    assert ESCAPE not in partly.out and "\r" not in partly.out
    lines = partly.out.splitlines()
    for line, column in REFUSED:
        assert any(each.startswith(f"line {line}, {column}: ") for each in lines)
    assert lines[-1] == "1,000 members made, 3 rows refused"
    assert await members_of(owner, society) == before + 1_000

    as_json = await shell.run("members", "import", str(tmp_path / "bad.csv"), "--dry-run", "--json")
    report = json.loads(as_json.out)
    assert (as_json.code, report["good"], report["refused"], report["job"]["state"]) == (1, 1_000, 3, "Completed")
    assert [(problem["line"], problem["column"]) for problem in report["problems"]] == REFUSED

    drawn = await shell.start("members", "import", str(tmp_path / "good.csv"), columns=100).ended()
    assert drawn.code == 0 and "━" in drawn.out and "1000/1000" in drawn.out
    assert "1,000 members made, 0 rows refused" in drawn.out


async def test_a_file_that_cannot_be_read_is_one_line(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "latin.csv").write_bytes("full_name,tier\nJosé,A\n".encode("latin-1"))
    wrong = {
        "full_name and tier are required": "empty.csv",
        "UTF-8": "latin.csv",
        "does not exist": "none.csv",
        "directory": "",
    }
    commands = [shell.start("members", "import", str(tmp_path / name)) for name in wrong.values()]
    for said, command in zip(wrong, commands, strict=True):
        done = await command.ended()
        assert (done.code, done.err.count("\n")) == (2, 1) and said in done.err


def test_the_file_is_read_in_chunks_and_anew_for_each_attempt(tmp_path: Path) -> None:
    (tmp_path / "large.csv").write_bytes(b"x" * (3 * CHUNK_BYTES + 1))
    seen: list[tuple[str, int]] = []
    shown: list[Reading] = []
    chunks: list[int] = []

    def content() -> Iterator[bytes]:
        for chunk in _chunks(tmp_path / "large.csv", shown.append):
            chunks.append(len(chunk))
            yield chunk

    def respond(request: httpx.Request) -> httpx.Response:
        seen.append((request.headers["Idempotency-Key"], len(request.read())))
        if len(seen) == 1:
            raise httpx.ReadError("the API restarts", request=request)
        return httpx.Response(202, json={"jobId": "1"})

    with ApiClient("http://api.test", "key", patience=10) as api:
        api.http = httpx.Client(transport=httpx.MockTransport(respond), base_url="http://api.test")
        assert api.post_csv("/import", content, idempotency_key="once") == {"jobId": "1"}
    assert seen == [("once", 3 * CHUNK_BYTES + 1)] * 2
    assert chunks == [CHUNK_BYTES, CHUNK_BYTES, CHUNK_BYTES, 1] * 2
    assert shown[-1].ended and shown[-1].total == 3 * CHUNK_BYTES // 1_024


@pytest.mark.parametrize("status", [401, 413])
def test_a_refusal_is_not_asked_again(status: int) -> None:
    asked: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(status, json={"detail": "no", "code": "NO"})

    with ApiClient("http://api.test", "key", patience=10) as api:
        api.http = httpx.Client(transport=httpx.MockTransport(respond), base_url="http://api.test")
        with pytest.raises(Exception, match=r"no \(NO\)"):
            api.post_csv("/import", lambda: [b"x"], idempotency_key="once")
    assert len(asked) == 1
