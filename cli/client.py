"""The API as the operators' commands see it: one client, its answers as dictionaries, its problems as one error."""

import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, NamedTuple, Self

import httpx
import orjson

from core.errors import GuthiError, SettingsError
from core.settings import load_settings

PAGE_ROWS = 200
AGAIN_SECONDS = 0.25
# A stream is pinged every 15 s: one that is silent for longer is broken.
STREAM_SILENCE_SECONDS = 20
# Faults of the way to the API, as opposed to those of the request; a restart looks like one of these.
AWAY = (httpx.NetworkError, httpx.TimeoutException, httpx.RemoteProtocolError)


class ApiError(GuthiError):
    """The API refused: its `detail` and `code` (RFC 9457). `status` is the HTTP status.

    `is_passing` says that it is none of the request's doing: asking again after `pause` seconds helps.
    """

    def __init__(self, response: httpx.Response) -> None:
        problem = _problem(response)
        self.status = response.status_code  # type: ignore[misc]  # another one for each answer
        self.code = problem.get("code", "UNKNOWN_ERROR")  # type: ignore[misc]
        super().__init__(f"{problem.get('detail') or response.reason_phrase} ({self.code})")
        self.context = problem.get("context") or {}
        self.is_passing = self.status == 429 or self.status >= 500
        self.pause = _retry_after(response)


class NotTheApiError(GuthiError):
    """Something answered that does not speak as the API does."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__(f"what answers at {response.url} is not the API of Guthi: check GUTHI_API_URL")


class ServerEvent(NamedTuple):
    """One server-sent event: its name, its data out of JSON, and what to send back to go on after it."""

    name: str
    data: Any
    position: str


def open_api() -> "ApiClient":
    """The client of the operators' commands, as `GUTHI_API_URL` and `GUTHI_API_KEY` say.

    Raises `SettingsError` when one of them is missing or cannot be right.
    """
    settings = load_settings()
    settings.require("api_url", "api_key")
    try:
        url = httpx.URL(settings.api_url)
    except httpx.InvalidURL as error:
        raise SettingsError(f"GUTHI_API_URL: {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise SettingsError("GUTHI_API_URL must look like http://127.0.0.1:8000")
    if not all("!" <= character <= "~" for character in settings.api_key):
        raise SettingsError("GUTHI_API_KEY must look like guthi_<keyid>_<secret>")
    return ApiClient(settings.api_url, settings.api_key, patience=settings.api_patience_seconds)


class ApiClient:
    """Calls with the key; raises `ApiError` for 4xx and 5xx, `httpx.TransportError` when nobody answers.

    With `patience` it asks again for that many seconds when the API is away or says that it is busy: every
    read, every POST that has its key, and what certainly did not arrive.

    >>> with ApiClient("http://127.0.0.1:8000", key) as api:
    ...     tiers = api.get("/api/tiers")["items"]
    """

    def __init__(self, url: str, key: str, timeout: float = 30, patience: float = 0) -> None:
        self.patience = patience
        self.http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.http.close()

    def get(self, path: str, **query: Any) -> Any:
        return self._call("GET", path, params={name: value for name, value in query.items() if value is not None})

    def items(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """All items of a list, fetched page by page as they are asked for."""
        after = None
        while True:
            page = self.get(path, limit=PAGE_ROWS, after=after, **query)
            yield from page["items"]
            if (after := page["next"]) is None:
                return

    def post(self, path: str, body: Any = None, *, idempotency_key: str | None = None) -> Any:
        return self._call("POST", path, json=body, headers=_idempotent(idempotency_key))

    def post_csv(
        self, path: str, content: bytes | Callable[[], Iterable[bytes]], *, idempotency_key: str, **query: Any
    ) -> Any:
        """`content` is bytes, or what opens them anew for each attempt: those are streamed."""
        headers = {"Content-Type": "text/csv", **_idempotent(idempotency_key)}
        return self._call("POST", path, content=content, headers=headers, params=query, timeout=None)

    def events(self, path: str, after: int | None = None, **query: Any) -> Iterator[ServerEvent]:
        """Each server-sent event after the position `after`, until the server ends the stream.

        It does not ask again: `cli.following` does. Raises `ValueError` for what is no JSON.
        """
        headers = {"Accept": "text/event-stream", **({} if after is None else {"Last-Event-ID": str(after)})}
        timeout = httpx.Timeout(STREAM_SILENCE_SECONDS)
        with self.http.stream("GET", path, headers=headers, params=query, timeout=timeout) as response:
            if not response.is_success:
                response.read()
                raise ApiError(response)
            yield from _server_events(response.iter_bytes())

    def _call(self, method: str, path: str, *, content: Any = None, **request: Any) -> Any:
        repeatable = method == "GET" or "Idempotency-Key" in request.get("headers", {})
        give_up_at = time.monotonic() + self.patience
        while True:
            body = content() if callable(content) else content
            pause = AGAIN_SECONDS
            try:
                response = self.http.request(method, path, content=body, **request)
            except AWAY as error:
                never_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                if not (repeatable or never_sent) or time.monotonic() + pause > give_up_at:
                    raise
            else:
                if not response.is_error:
                    return _read(response)
                refusal = ApiError(response)
                pause = refusal.pause
                if not _is_passing(refusal, repeatable) or time.monotonic() + pause > give_up_at:
                    raise refusal
            time.sleep(pause)


def _idempotent(key: str | None) -> dict[str, str]:
    return {"Idempotency-Key": key} if key else {}


def _problem(response: httpx.Response) -> dict[str, Any]:
    """Empty when the answer came from something in between, which speaks no problem+json."""
    try:
        problem = response.json()
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}


def _read(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        raise NotTheApiError(response) from None


def _server_events(chunks: Iterable[bytes]) -> Iterator[ServerEvent]:
    """Only LF and CR LF end a line here: text may hold other characters that Python takes for ends of lines."""
    rest = b""
    fields: dict[bytes, bytes] = {}
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            name, colon, value = line.removesuffix(b"\r").partition(b":")
            if name:
                fields[name] = value.removeprefix(b" ")
            elif not colon:  # an empty line ends an event; one that begins with a colon is a ping
                if b"data" in fields:  # ours are one line of JSON each
                    told = fields.get(b"event", b"message").decode(), orjson.loads(fields[b"data"])
                    yield ServerEvent(*told, fields.get(b"id", b"").decode())
                fields = {}


def _is_passing(refusal: ApiError, repeatable: bool) -> bool:
    """Whether asking again helps: a limit (429), no connection free (503), the first request still running (409)."""
    busy = refusal.status in (429, 503) or refusal.code == "IDEMPOTENCY_KEY_IN_FLIGHT"
    return busy or (repeatable and refusal.status in (502, 504))


def _retry_after(response: httpx.Response) -> float:
    told = response.headers.get("Retry-After", "")
    return float(told) if told.isdigit() else AGAIN_SECONDS
