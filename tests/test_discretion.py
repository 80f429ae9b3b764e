"""That a secret in the output of a test is found, and fails it."""

import secrets
from collections.abc import Callable

import jwt
import pytest

from tests.discretion import remember, said_in
from tests.support import Society, Worker


async def test_what_is_made_is_found_wherever_it_stands(society: Society) -> None:
    secret = society.api_key.rsplit("_", 1)[1]
    token = jwt.encode({"sub": "x"}, secrets.token_hex(32))
    remember("a password of some length")
    for said in (secret, society.api_key, token, "a password of some length"):
        assert said_in(f'{{"event": "x", "key": "{said}"}}') != []
    assert said_in(f"key {society.api_key.split('_')[1]} of {society.user_id} in 2025") == []


def test_keys_of_other_processes_are_known_by_their_shape() -> None:
    assert said_in(f"guthi_{'0' * 32}_{'f' * 64}") == ["guthi_00…"]


async def test_a_log_that_holds_one_fails_its_test(start_worker: Callable[..., Worker], society: Society) -> None:
    worker = start_worker()
    worker.process.kill()
    worker.process.wait()
    worker.log.write_text(f"hello {society.api_key}")
    with pytest.raises(AssertionError, match="holds secrets"):
        worker.kill()
