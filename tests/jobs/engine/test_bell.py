"""The doorbell while Redis is away: whatever the socket says, that is all it means."""

from uuid import uuid4

import pytest
import redis.exceptions

from jobs.engine.bell import PlainSpoken
from jobs.engine.engine import Engine


async def cut(*_: object) -> None:
    """As uvloop says it when the other side has gone between connecting and writing."""
    raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")


async def test_a_socket_that_was_just_cut_is_redis_away(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = engine.bell._redis.connection_pool
    monkeypatch.setattr(pool.connection_class, "_send_packed_command", cut)
    assert issubclass(pool.connection_class, PlainSpoken)
    assert await engine.bell.ring(uuid4(), uuid4()) is False
    with pytest.raises(redis.exceptions.ConnectionError):
        await engine.bell._redis.ping()


async def test_a_defect_is_not_taken_for_redis_away(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def defect(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(engine.bell._redis.connection_pool.connection_class, "_send_packed_command", defect)
    with pytest.raises(RuntimeError):
        await engine.bell.ring(uuid4(), uuid4())
