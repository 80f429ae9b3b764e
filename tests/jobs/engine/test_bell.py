"""The doorbell while Redis is away: whatever the socket says, that is all it means."""

import asyncio
import os
import signal
from pathlib import Path
from uuid import uuid4

import pytest
import redis.exceptions

from core import telemetry
from core.settings import Settings
from db.embedded import EmbeddedValkey
from jobs.engine.bell import PlainSpoken, connect_redis
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


async def test_to_close_a_redis_that_hangs_in_the_middle_of_a_write_never_raises(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []
    monkeypatch.setattr(telemetry, "_subscribers", [lambda _, fields: heard.append(fields["error"])])
    with EmbeddedValkey(tmp_path) as valkey:
        client = connect_redis(settings.model_copy(update={"redis_url": valkey.url}))
        await client.ping()
        (connection,) = client.connection_pool._available_connections
        assert valkey.pid is not None
        os.kill(valkey.pid, signal.SIGSTOP)
        writing = asyncio.create_task(client.set("large", b"x" * 50_000_000))  # more than the socket takes
        while not connection._writer.transport.get_write_buffer_size():
            await asyncio.sleep(0)  # a turn of the loop: a transport tells nobody that its buffer fills
        await client.aclose(close_connection_pool=True)
        with pytest.raises(redis.exceptions.RedisError):
            await writing
        os.kill(valkey.pid, signal.SIGCONT)
    assert ["Timed out closing connection" in error for error in heard] == [True]
