"""The seam that every call to PostgreSQL and to Redis goes through, each by a name: `sql:advance_shard`, `redis:ZADD`.

An error that comes out of a call knows the call's name (`call_of`); whoever wants to count calls, or to break the
Nth of them, puts an interceptor around all of this process (`intercept`).
"""

from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
Interceptor = Callable[[str, Callable[[], Awaitable[Any]]], Awaitable[Any]]
"""Given the call's name and what makes it: `lambda name, act: act()` changes nothing."""

_interceptor: Interceptor | None = None


def intercept(interceptor: Interceptor | None) -> None:
    """From now on every call of this process goes through `interceptor`; None: through nothing again."""
    global _interceptor
    _interceptor = interceptor


async def call(name: str, act: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """`await act(...)`, known as `name`."""
    try:
        if _interceptor is None:
            return await act(*args, **kwargs)
        answer: T = await _interceptor(name, lambda: act(*args, **kwargs))
        return answer
    except Exception as error:
        if call_of(error) is None:
            error.guthi_call = name  # type: ignore[attr-defined]  # any exception takes attributes
        raise


def call_of(error: BaseException) -> str | None:
    """The name of the call that `error` came out of; None when it came out of none."""
    name: str | None = getattr(error, "guthi_call", None)
    return name
