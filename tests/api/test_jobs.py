"""Jobs over HTTP: seen, listed, read, steered; what the state map does not allow is refused with both states."""

from uuid import UUID

import asyncpg
import httpx
import pytest

from jobs.engine.engine import Engine
from jobs.engine.runner import _run_shard, _take_lease, run_job
from jobs.invariants import broken_invariants
from tests.api.conftest import Start
from tests.api.expect import UNKNOWN, refused, unchanged
from tests.cycles import count_rows, tuned
from tests.support import Society, assert_whole

FIELDS = {
    *("jobId", "kind", "subjectId", "state", "priority", "total", "processed", "percentage", "rate"),
    *("estimatedTimeRemaining", "attempts", "error", "createdBy", "createdAt", "startedAt", "completedAt", "shards"),
    *("subjectCode", "createdByName", "allowed", "canRetry", "errorDetail"),
}
SHARD_FIELDS = {
    *("shardNo", "processed", "done", "leased", "leaseHolder", "leaseExpiresAt", "attempts", "nextAttemptAt", "error"),
    *("batchRows", "lower", "upper", "cursor"),
}


async def test_a_job_is_shown_with_its_shards_and_its_log(
    client: httpx.AsyncClient, start: Start, engine: Engine, society: Society
) -> None:
    cycle = (await start(strategy="queued", priority=60)).json()
    path = f"/api/jobs/{cycle['jobId']}"
    job = (await client.get(path)).json()
    assert set(job) == FIELDS and [set(shard) for shard in job["shards"]] == [SHARD_FIELDS]
    assert (job["kind"], job["subjectId"], job["state"]) == ("create_contributions", cycle["cycleId"], "Queued")
    assert (job["priority"], job["total"], job["processed"], job["percentage"]) == (60, None, 0, 0)
    await run_job(engine, society.tenant_id, UUID(cycle["jobId"]))
    job = (await client.get(path)).json()
    assert (job["state"], job["total"], job["processed"], job["percentage"]) == ("Completed", 100, 100, 100)
    assert (job["estimatedTimeRemaining"], job["shards"][0]["done"]) == (0, True)
    log = (await client.get(f"{path}/log")).json()
    assert next(set(entry) for entry in log["items"]) == {"entryNo", "at", "level", "event", "fields"}
    assert [entry["event"] for entry in log["items"]] == [
        "job_started",
        "job_processing",
        "job_planned",
        "job_completed",
    ]


async def test_logs_and_lists_are_paged(client: httpx.AsyncClient, start: Start) -> None:
    cycle = (await start()).json()
    path = f"/api/jobs/{cycle['jobId']}/log"
    whole = (await client.get(path)).json()["items"]
    seen = []
    page = (await client.get(path, params={"limit": 1})).json()
    while page["next"]:
        seen += page["items"]
        page = (await client.get(path, params={"limit": 1, "after": page["next"]})).json()
    assert seen + page["items"] == whole
    newest = (await client.get("/api/jobs?limit=1")).json()
    oldest = (await client.get("/api/jobs", params={"limit": 1, "after": newest["next"]})).json()
    assert [job["kind"] for job in newest["items"] + oldest["items"]] == [
        *("notify_agents_new_cycle", "create_contributions")
    ]
    assert oldest["next"] is None
    queued = (await client.get("/api/jobs?state=Queued&kind=notify_agents_new_cycle")).json()["items"]
    assert queued == newest["items"]
    assert (await client.get("/api/jobs?kind=unheard_of")).json()["items"] == []


async def test_pause_resume_and_cancel(
    client: httpx.AsyncClient, start: Start, engine: Engine, society: Society, owner: asyncpg.Connection
) -> None:
    cycle = (await start(strategy="queued")).json()
    path, job_id = f"/api/jobs/{cycle['jobId']}", UUID(cycle["jobId"])
    paused = await client.post(f"{path}/pause")
    assert (paused.status_code, paused.json()["state"]) == (200, "Paused")
    await run_job(engine, society.tenant_id, job_id)
    assert await count_rows(owner, UUID(cycle["cycleId"])) == 0
    assert (await client.post(f"{path}/resume")).json()["state"] == "Queued"
    assert (await client.post(f"{path}/cancel")).json()["state"] == "Cancelled"
    shown = (await client.get(f"/api/contribution-cycles/{cycle['cycleId']}")).json()
    assert (shown["cycleStatus"], shown["jobStatus"]) == ("Cancelled", "Cancelled")
    assert await broken_invariants(owner) == []


async def test_a_failed_job_tells_why_and_is_retried(
    client: httpx.AsyncClient, start: Start, engine: Engine, society: Society, owner: asyncpg.Connection
) -> None:
    cycle = (await start(strategy="queued")).json()
    path, job_id = f"/api/jobs/{cycle['jobId']}", UUID(cycle["jobId"])
    await run_job(tuned(engine, faults="in_batch=error"), society.tenant_id, job_id)
    failed = (await client.get(path)).json()
    assert failed["state"] == "Failed" and "injected" in failed["error"]
    shown = (await client.get(f"/api/contribution-cycles/{cycle['cycleId']}")).json()
    assert (shown["cycleStatus"], shown["jobError"]) == ("Failed", failed["error"])
    again = (await client.post(f"{path}/retry")).json()
    assert (again["state"], again["attempts"], again["error"]) == ("Queued", 1, None)
    await run_job(engine, society.tenant_id, job_id)
    await assert_whole(owner, society, UUID(cycle["cycleId"]))


async def test_an_error_is_explained(
    client: httpx.AsyncClient, start: Start, engine: Engine, society: Society, owner: asyncpg.Connection
) -> None:
    cycle = (await start(strategy="queued")).json()
    await owner.execute(
        "INSERT INTO contributions (tenant_id, cycle_id, member_id, contribution_amount, due_date)"
        " SELECT tenant_id, $1, max(member_id::text)::uuid, 1, now() FROM tier_memberships GROUP BY tenant_id",
        UUID(cycle["cycleId"]),
    )
    await run_job(tuned(engine, batch_rows=40), society.tenant_id, UUID(cycle["jobId"]))
    failed = (await client.get(f"/api/jobs/{cycle['jobId']}")).json()
    detail = failed["errorDetail"]
    assert "duplicate key" in detail.pop("message") and "retry" in detail.pop("advice")
    assert detail.pop("cursor") == failed["shards"][0]["cursor"]
    assert detail == {
        "errorClass": "UniqueViolationError",
        "statement": "insert_contributions",
        "shardNo": 0,
        "attempt": 1,
        "retriable": False,
    }
    assert (failed["canRetry"], failed["allowed"]) == (True, ["cancel", "retry"])
    await owner.execute("DELETE FROM contributions WHERE contribution_amount = 1")
    again = (await client.post(f"/api/jobs/{cycle['jobId']}/retry")).json()
    assert (again["errorDetail"], again["allowed"]) == (None, ["pause", "cancel"])


@pytest.mark.parametrize(
    ("fault", "retriable", "words"), [("in_batch=disconnect", True, "has passed"), ("in_batch=error", False, "alone")]
)
async def test_advice_says_whether_a_retry_helps(
    client: httpx.AsyncClient, start: Start, engine: Engine, society: Society, fault: str, retriable: bool, words: str
) -> None:
    cycle = (await start(strategy="queued")).json()
    await run_job(tuned(engine, faults=fault, max_attempts=1), society.tenant_id, UUID(cycle["jobId"]))
    detail = (await client.get(f"/api/jobs/{cycle['jobId']}")).json()["errorDetail"]
    assert (detail["retriable"], detail["statement"], detail["cursor"]) == (retriable, None, None)
    assert words in detail["advice"]


async def test_what_is_allowed_is_what_is_not_refused(client: httpx.AsyncClient, start: Start) -> None:
    path = f"/api/jobs/{(await start(strategy='queued')).json()['jobId']}"
    assert (await client.get(path)).json()["allowed"] == ["pause", "cancel"]
    assert (await client.post(f"{path}/pause")).json()["allowed"] == ["resume", "cancel"]
    assert (await client.post(f"{path}/cancel")).json()["allowed"] == []
    (cleaning,) = (await client.get("/api/jobs?kind=remove_contributions")).json()["items"]
    assert cleaning["allowed"] == ["pause"]  # half-removed rows are no state anybody wants
    refused(await client.post(f"/api/jobs/{cleaning['jobId']}/cancel"), 409, "INVALID_STATUS_TRANSITION")


async def test_jobs_are_found_by_who_started_them_and_by_being_unfinished(
    client: httpx.AsyncClient, start: Start, society: Society
) -> None:
    cycle, done = (await start(strategy="queued")).json(), (await start()).json()
    unfinished = (await client.get("/api/jobs?unfinished=true")).json()["items"]
    assert {job["state"] for job in unfinished} == {"Queued"}
    assert cycle["jobId"] in {job["jobId"] for job in unfinished}
    assert done["jobId"] not in {job["jobId"] for job in unfinished}
    (await client.post(f"/api/jobs/{cycle['jobId']}/pause")).raise_for_status()
    paused = (await client.get("/api/jobs?unfinished=true&kind=create_contributions")).json()["items"]
    assert [(job["jobId"], job["state"]) for job in paused] == [(cycle["jobId"], "Paused")]
    assert (paused[0]["createdByName"], paused[0]["subjectCode"]) == ("Administrator", cycle["cycleCode"])
    own = (await client.get("/api/jobs", params={"createdBy": str(society.user_id)})).json()["items"]
    assert {cycle["jobId"], done["jobId"]} <= {job["jobId"] for job in own}
    assert (await client.get("/api/jobs", params={"createdBy": UNKNOWN})).json()["items"] == []


async def test_a_shard_tells_who_holds_it(
    client: httpx.AsyncClient, start: Start, engine: Engine, society: Society
) -> None:
    cycle = (await start(strategy="queued")).json()
    named = tuned(engine, worker_name="worker-7", batch_rows=40, slice_seconds=0)
    lease = await _take_lease(named, society.tenant_id, UUID(cycle["jobId"]))
    assert lease is not None
    (shard,) = (await client.get(f"/api/jobs/{cycle['jobId']}")).json()["shards"]
    assert (shard["leaseHolder"], shard["leased"], shard["batchRows"]) == ("worker-7", True, None)
    assert shard["leaseExpiresAt"] is not None
    assert await _run_shard(named, lease, slice_ends=0)
    (shard,) = (await client.get(f"/api/jobs/{cycle['jobId']}")).json()["shards"]
    assert (shard["leaseHolder"], shard["leased"], shard["leaseExpiresAt"]) == (None, False, None)
    assert (shard["batchRows"], shard["processed"], shard["lower"]) == (40, 40, None)
    assert shard["cursor"] < shard["upper"]


async def test_the_newest_lines_of_a_log(client: httpx.AsyncClient, start: Start) -> None:
    job = (await start(strategy="queued")).json()
    path = f"/api/jobs/{job['jobId']}/log"
    for verb in ("pause", "resume", "pause"):
        await client.post(f"/api/jobs/{job['jobId']}/{verb}")
    whole = (await client.get(path)).json()["items"]
    newest = (await client.get(path, params={"newest": "true", "limit": 2})).json()
    assert newest["items"] == whole[-2:]
    assert (await client.get(path, params={"after": newest["next"]})).json()["items"] == []
    await client.post(f"/api/jobs/{job['jobId']}/cancel")
    later = (await client.get(path, params={"after": newest["next"], "newest": "true"})).json()
    assert [entry["event"] for entry in later["items"]] == ["job_cancelled"]
    still = (await client.get(path, params={"after": later["next"], "newest": "true"})).json()
    assert still == {"items": [], "next": later["next"]}


@pytest.mark.parametrize(
    ("before", "verb", "current"),
    [
        ("", "resume", "Queued"),
        ("", "retry", "Queued"),
        ("pause", "pause", "Paused"),
        ("pause", "retry", "Paused"),
        ("cancel", "cancel", "Cancelled"),
        ("cancel", "pause", "Cancelled"),
        ("cancel", "resume", "Cancelled"),
        ("cancel", "retry", "Cancelled"),
    ],
)
async def test_what_a_state_does_not_allow_is_refused_with_both_states(
    client: httpx.AsyncClient, start: Start, owner: asyncpg.Connection, before: str, verb: str, current: str
) -> None:
    path = f"/api/jobs/{(await start(strategy='queued')).json()['jobId']}"
    if before:
        await client.post(f"{path}/{before}")
    async with unchanged(owner):
        problem = refused(await client.post(f"{path}/{verb}"), 409, "INVALID_STATUS_TRANSITION")
    wanted = {"pause": "Paused", "cancel": "Cancelled"}.get(verb, "Queued")
    assert problem["context"] == {"current": current, "wanted": wanted}


async def test_a_completed_job_is_left_alone(
    client: httpx.AsyncClient, start: Start, owner: asyncpg.Connection
) -> None:
    path = f"/api/jobs/{(await start()).json()['jobId']}"
    async with unchanged(owner):
        for verb in ("pause", "resume", "cancel", "retry"):
            refused(await client.post(f"{path}/{verb}"), 409, "INVALID_STATUS_TRANSITION")


async def test_an_unknown_job_is_not_found(client: httpx.AsyncClient) -> None:
    for method, tail in (("GET", ""), ("GET", "/log"), *(("POST", f"/{v}") for v in ("pause", "cancel"))):
        refused(await client.request(method, f"/api/jobs/{UNKNOWN}{tail}"), 404, "JOB_NOT_FOUND")


async def test_the_rate_over_the_run(client: httpx.AsyncClient, start: Start, engine: Engine, society: Society) -> None:
    cycle = (await start(strategy="queued")).json()
    path = f"/api/jobs/{cycle['jobId']}/rates"
    assert (await client.get(path)).json() == {"items": []}
    await run_job(engine, society.tenant_id, UUID(cycle["jobId"]))
    (point,) = (await client.get(path)).json()["items"]
    assert set(point) == {"at", "processed", "rowsPerSecond"}
    assert point["processed"] == 100 and point["rowsPerSecond"] > 0
    refused(await client.get(f"/api/jobs/{UNKNOWN}/rates"), 404, "JOB_NOT_FOUND")
