"""The API as the operators' commands see it: one client, its answers as dictionaries, its problems as one error."""

from types import TracebackType
from typing import Any, Self

import httpx

from core.errors import GuthiError


class ApiError(GuthiError):
    """The API refused: its `detail` and `code` (RFC 9457). `status` is the HTTP status."""

    def __init__(self, response: httpx.Response) -> None:
        try:
            problem = response.json()
        except ValueError:
            problem = {}
        said = problem.get("detail") or problem.get("title") or response.reason_phrase
        self.status = response.status_code  # type: ignore[misc]  # another one for each answer
        self.code = problem.get("code", "UNKNOWN_ERROR")  # type: ignore[misc]
        super().__init__(f"{said} ({self.code})", **problem.get("context") or {})


class ApiClient:
    """Calls with the key; raises `ApiError` for 4xx and 5xx, `httpx.TransportError` when nobody answers.

    >>> with ApiClient("http://127.0.0.1:8000", key) as api:
    ...     tiers = api.get("/api/tiers")["items"]
    """

    def __init__(self, url: str, key: str, timeout: float = 30) -> None:
        self.http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.http.close()

    def get(self, path: str, **query: Any) -> Any:
        return self._call("GET", path, params={name: value for name, value in query.items() if value is not None})

    def post(self, path: str, body: Any = None, *, idempotency_key: str | None = None) -> Any:
        return self._call("POST", path, json=body, headers=_idempotent(idempotency_key))

    def post_csv(self, path: str, content: Any, *, idempotency_key: str, **query: Any) -> Any:
        """`content` is bytes or an iterable of them, which is then streamed."""
        headers = {"Content-Type": "text/csv", **_idempotent(idempotency_key)}
        return self._call("POST", path, content=content, headers=headers, params=query, timeout=None)

    def _call(self, method: str, path: str, **request: Any) -> Any:
        response = self.http.request(method, path, **request)
        if response.is_error:
            raise ApiError(response)
        return response.json()


def _idempotent(key: str | None) -> dict[str, str]:
    return {"Idempotency-Key": key} if key else {}
