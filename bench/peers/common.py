"""What the peers share: where the servers are, the table of their runs, and how they talk to the bench.

A peer is run as `NAME.py setup`, `NAME.py worker` and `NAME.py client`. A worker says `ready` and works until it is
ended. A client says `ready`, then obeys one line of JSON after the other: `start` hands a run over as the application
behind an API would, `stop` asks the peer to end it; each is answered by a line once the peer has taken it.
"""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

DATABASE_URL = os.environ["BENCH_DATABASE_URL"]
REDIS_URL = os.environ["BENCH_REDIS_URL"]
BATCH_ROWS = 10_000

NEW_RUN = "INSERT INTO bench_runs (run_id, tenant_id, tier_id, dead) VALUES ({0}, {1}, {2}, {3})"
# One batch as psycopg takes it: the rows, and in the same statement how far the run is.
BATCH = """
WITH batch AS (
    INSERT INTO contributions (tenant_id, cycle_id, member_id, contribution_amount, due_date)
    SELECT tenant_id, %(run_id)s, member_id, 100, current_date + 15 FROM tier_memberships
    WHERE tenant_id = %(tenant_id)s AND tier_id = %(tier_id)s AND member_id > %(cursor)s AND member_id <> %(dead)s
      AND valid_from <= now() AND (valid_to IS NULL OR valid_to > now())
    ORDER BY member_id LIMIT %(rows)s
    RETURNING member_id
)
UPDATE bench_runs
SET processed = processed + (SELECT count(*) FROM batch),
    cursor = coalesce((SELECT member_id FROM batch ORDER BY member_id DESC LIMIT 1), cursor),
    status = CASE WHEN (SELECT count(*) FROM batch) < %(rows)s THEN 'Active' ELSE status END
WHERE run_id = %(run_id)s
RETURNING cursor, status
"""
GET_RUN = "SELECT run_id, tenant_id, tier_id, dead, cursor, status FROM bench_runs WHERE run_id = %s"


def say(word: str) -> None:
    print(word, flush=True)


def obey(act: Callable[[dict[str, Any]], None]) -> None:
    say("ready")
    for line in sys.stdin:
        act(json.loads(line))
        say("done")


async def obey_async(act: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
    say("ready")
    while line := await asyncio.to_thread(sys.stdin.readline):
        await act(json.loads(line))
        say("done")


def ids(order: dict[str, Any]) -> tuple[str, str, str, str]:
    return order["run_id"], order["tenant_id"], order["tier_id"], order["dead"]
