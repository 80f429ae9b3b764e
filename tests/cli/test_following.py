"""Following: nothing is missed, nothing told twice, and being away is told in one line."""

import json
from collections.abc import Callable, Iterator
from uuid import UUID, uuid4

import httpx
import pytest

from cli import following
from cli.client import ApiClient, ApiError, ServerEvent
from cli.events import _Reader
from cli.job_log import JobLog
from cli.running import SHARD, SUMMARY, RunningJobs

Respond = Callable[[httpx.Request], httpx.Response]
JOB = UUID(int=7)
AWAY = httpx.Response(503, json={"detail": "no connection is free", "code": "DATABASE_ERROR"})


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "AGAIN_SECONDS", 0)


def api_that(respond: Respond) -> ApiClient:
    api = ApiClient("http://api.test", "key")
    api.http = httpx.Client(transport=httpx.MockTransport(respond), base_url="http://api.test")
    return api


def sent(*events: tuple[str, object, int | None]) -> httpx.Response:
    """A stream that ends early: how a restart of the API looks."""
    texts = (
        f"event: {name}\r\ndata: {json.dumps(data, ensure_ascii=False)}\r\n"
        + (f"id: {number}\r\n\r\n" if number else "\r\n")
        for name, data, number in events
    )
    return httpx.Response(200, text=": ping\r\n\r\n" + "".join(texts))


def test_a_stream_is_read_whatever_characters_its_data_has() -> None:
    hostile = {"name": "a\u2028b\x85c\x0bd: \x1b[2J"}
    with api_that(lambda _: sent(("event", hostile, 5), ("other", [], None))) as api:
        assert list(api.events("/s")) == [ServerEvent("event", hostile, "5"), ServerEvent("other", [], "")]


def test_the_feed_goes_on_after_what_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[str] = []
    answers: Iterator[httpx.Response | Exception] = iter(
        [
            httpx.Response(200, json={"items": [{"position": 1}, {"position": 2}], "next": 2}),
            httpx.Response(200, json={"items": [], "next": 2}),
            sent(("event", {"position": 2}, 2), ("event", {"position": 3}, 3)),
            httpx.ConnectError("refused"),
            AWAY,
            httpx.Response(200, json={"items": [{"position": 4}], "next": 4}),
            httpx.ReadTimeout("silent"),
            httpx.Response(200, json={"items": [], "next": 4}),
            sent(("event", {"position": 5}, 5)),
            httpx.Response(403, json={"detail": "the key's user was deactivated", "code": "USER_INACTIVE"}),
        ]
    )

    def respond(request: httpx.Request) -> httpx.Response:
        asked.append(f"{request.url.params.get('after', '')} {request.headers.get('Last-Event-ID', '')}")
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    given: list[int] = []
    with api_that(respond) as api, pytest.raises(ApiError, match="deactivated"):
        reader = _Reader(api, 0)
        given.extend(event["position"] for event in following.follow(api, reader.ask, reader.listen))
    assert given == [1, 2, 3, 4, 5]
    assert asked == ["0 ", "2 ", " 2", "3 ", "3 ", "3 ", "4 ", "4 ", " 4", "5 "]
    assert capsys.readouterr().err.splitlines() == [
        "guthi: the API is away, waiting for it: refused",
        "guthi: the API is back",
        "guthi: the API is away, waiting for it: silent",
        "guthi: the API is back",
    ]


def entry(number: int) -> dict[str, object]:
    return {"entryNo": number, "event": "x", "fields": {}}


def test_a_log_line_that_was_committed_late_is_given_once() -> None:
    job_states = iter(["Processing", "Completed"])
    logs = iter([[entry(1), entry(3)], [entry(1), entry(2), entry(3), entry(5)]])

    def respond(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/log"):
            return httpx.Response(200, json={"items": next(logs), "next": None})
        if request.url.path.endswith("/stream"):
            assert request.headers["Last-Event-ID"] == "3"
            return sent(("log", entry(4), 4), ("job", {"state": "Completed"}, None))
        return httpx.Response(200, json={"state": next(job_states)})

    with api_that(respond) as api:
        assert [line["entryNo"] for line in JobLog(api, JOB).follow()] == [1, 3, 4, 2, 5]


def job(job_id: str, state: str, processed: int = 0) -> dict[str, object]:
    values = {"jobId": job_id, "state": state, "processed": processed}
    return {name: values.get(name) for name in SUMMARY} | {"shards": [dict.fromkeys(SHARD) | {"shardNo": 0}]}


def test_a_job_that_ended_while_nobody_listened_is_told_of() -> None:
    old, new, quick_one = (str(uuid4()) for _ in range(3))
    more = {"canRetry": False, "errorDetail": None}

    def respond(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/jobs/stream":
            return sent(
                ("jobs", {"items": [job(new, "Queued")]}, None),
                ("jobs", {"items": [job(new, "Processing", 5), job(quick_one, "Completed", 9)]}, None),
                ("jobs", {"items": [job(new, "Processing", 5)]}, None),
            )
        if request.url.path == "/api/jobs" and "unfinished" not in request.url.params:
            return httpx.Response(200, json={"items": [], "next": None})
        if request.url.path == "/api/jobs":
            return httpx.Response(200, json={"items": [{**job(old, "Processing", 1), **more}], "next": None})
        assert request.url.path == f"/api/jobs/{old}"
        return httpx.Response(200, json={**job(old, "Failed", 1), **more})

    with api_that(respond) as api:
        changes = RunningJobs(api).changes()
        told = [[(each["jobId"], each["state"]) for each in next(changes)] for _ in range(4)]
    assert told == [
        [(old, "Processing")],
        [(new, "Queued"), (old, "Failed")],
        [(new, "Processing"), (quick_one, "Completed")],
        [],
    ]
