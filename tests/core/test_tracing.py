"""One trace from the request to the batches, across processes, also those that die; and that none of it is needed."""

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from core.spans import ATTRIBUTES
from db.embedded import free_port
from tests.core.collector import Collector, Received
from tests.cycles import SMALL_STEPS, becomes, job_of, slow_batches
from tests.support import ROOT, Api, Society, Worker, assert_whole, eventually, make_society

StartWorker = Callable[..., Worker]
StartApi = Callable[..., Awaitable[Api]]
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = f"00-{TRACE_ID}-00f067aa0ba902b7-01"
START = "POST /api/contribution-cycles"


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.stop()


async def start_over_http(api: Api, society: Society, **headers: str) -> UUID:
    """The id of a new cycle that workers are to create."""
    known = {"Authorization": f"Bearer {society.api_key}", "Idempotency-Key": str(uuid4())}
    body = {"tierId": str(society.tier_id), "deceasedMemberId": str(society.dead), "strategy": "queued"}
    async with httpx.AsyncClient(base_url=api.url, headers={**known, **headers}) as client:
        answer = await client.post("/api/contribution-cycles", json=body)
    assert answer.status_code == 202, answer.text
    return UUID(answer.json()["cycleId"])


async def stopped(*processes: Worker | Api, within: float = 30) -> None:
    for process in processes:
        process.send(signal.SIGTERM)
    for process in processes:
        assert await process.ended(within) in (0, -signal.SIGTERM), process.log.read_text()


async def test_one_trace_leads_from_the_request_to_the_batches_though_a_worker_is_killed(
    owner: asyncpg.Connection, start_api: StartApi, start_worker: StartWorker, collector: Collector
) -> None:
    society = await make_society(owner, members=4_000)
    traced = {"GUTHI_OTLP_ENDPOINT": collector.url}
    api = await start_api(**traced)
    cycle_id = await start_over_http(api, society, traceparent=CALLER, **{"X-Request-Id": "told-by-the-client"})

    await slow_batches(owner, 0.2)
    first = start_worker(**SMALL_STEPS, **traced)
    await eventually(lambda: told(collector, "batch"))  # what ended before the kill is on its way or there
    first.send(signal.SIGKILL)
    await first.ended()
    before = len(collector.named("batch"))
    await slow_batches(owner, 0)
    second = start_worker(**SMALL_STEPS, **traced)
    await becomes(owner, cycle_id, "Active")
    await assert_whole(owner, society, cycle_id)
    notify = "notify_agents_new_cycle"
    await eventually(lambda: job_of(owner, cycle_id, notify), lambda job: job["state"] == "Completed")
    await stopped(second, api)  # which sends the rest

    trace = [span for span in collector.spans if span.trace_id == TRACE_ID]
    spans = {span.span_id: span for span in trace}
    (request,) = [span for span in trace if span.name == START]
    assert request.parent_id == "00f067aa0ba902b7"
    assert request.service == "guthi-api"
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/api/contribution-cycles",
        "http.response.status_code": 202,
        "guthi.request_id": "told-by-the-client",
        "guthi.tenant_id": str(society.tenant_id),
    }
    assert "job_rung" in request.events

    job = await job_of(owner, cycle_id)
    create, follow_up = sorted((s for s in trace if s.name == "job_start"), key=lambda s: s.began)
    assert (create.parent_id, create.attributes["guthi.job_id"]) == (request.span_id, str(job["job_id"]))
    assert job["trace_context"] == f"00-{TRACE_ID}-{create.span_id}-01"
    runs = [span for span in trace if span.name == "shard_run"]
    of_the_cycle = [run for run in runs if run.attributes["guthi.job_id"] == str(job["job_id"])]
    assert len(of_the_cycle) >= 4 and {run.parent_id for run in of_the_cycle} == {create.span_id}
    assert {run.service for run in runs} == {"guthi-worker"}
    assert {run.attributes["guthi.shard_no"] for run in of_the_cycle} == {0, 1, 2, 3}
    assert max(run.attributes["guthi.attempt"] for run in of_the_cycle) == 2
    assert "job_completed" in [event for run in of_the_cycle for event in run.events]
    assert spans[follow_up.parent_id] in of_the_cycle
    assert {run.parent_id for run in runs} == {create.span_id, follow_up.span_id}
    assert {bell.parent_id for bell in trace if bell.name == "doorbell"} <= {create.span_id, follow_up.span_id}
    assert [bell for bell in trace if bell.name == "doorbell"]

    batches = [span for span in trace if span.name == "batch"]
    orphans = [batch for batch in batches if batch.parent_id not in spans]  # their run went with the first worker
    assert 0 < before <= len(batches) and len(orphans) <= before + 2
    for batch in batches:
        if batch not in orphans:
            run = spans[batch.parent_id]
            assert run.name == "shard_run" and run.began <= batch.began <= batch.ended <= run.ended
    walked = sum(b.attributes["guthi.rows"] for b in batches if b.attributes["guthi.kind"] == "create_contributions")
    assert 4_000 - 2 * 200 - 200 * 5 <= walked <= 4_000  # a second's worth of the first worker may be missing


async def told(collector: Collector, name: str) -> list[Received]:
    return collector.named(name)


async def test_spans_hold_known_fields_and_no_secret(
    owner: asyncpg.Connection, start_api: StartApi, start_worker: StartWorker, collector: Collector
) -> None:
    society = await make_society(owner, members=300)
    api = await start_api(GUTHI_OTLP_ENDPOINT=collector.url)
    worker = start_worker(GUTHI_OTLP_ENDPOINT=collector.url, GUTHI_FAULTS="in_batch=error")
    cycle_id = await start_over_http(api, society, traceparent="nonsense")
    await becomes(owner, cycle_id, "Failed")
    person = {
        "fullName": "Sita Devi Shrestha",
        "gender": "F",
        "tierId": str(society.tier_id),
        "phone": "+9779812345678",
    }
    async with httpx.AsyncClient(base_url=api.url, headers={"Authorization": f"Bearer {society.api_key}"}) as client:
        await client.post("/api/members", json=person, headers={"Idempotency-Key": "sita"})
        assert (await client.get("/metrics")).is_success
        assert (await client.get("/api/nowhere/Sita")).status_code == 404
    await stopped(worker, api)

    (request,) = collector.named(START)
    assert request.parent_id == "" and request.trace_id != TRACE_ID  # what cannot be read begins a trace of its own
    (run,) = collector.named("shard_run")
    assert run.trace_id == request.trace_id and run.failed
    assert {"attempt_failed", "job_failed"} <= set(run.events)
    assert {"GET none"} <= {span.name for span in collector.spans}
    assert not [span for span in collector.spans if "/metrics" in span.name or "/readyz" in span.name]
    assert {name for span in collector.spans for name in span.attributes} <= set(ATTRIBUTES.values())
    for hidden in ("Sita", "9812345678", society.api_key.rpartition("_")[2], "injected", "Member "):
        assert hidden.encode() not in collector.raw, hidden


async def test_collectors_in_trouble_fail_and_delay_nothing(
    owner: asyncpg.Connection, start_api: StartApi, start_worker: StartWorker
) -> None:
    released = threading.Event()
    refuses, hangs, away = Collector(lambda: 1 / 0), Collector(released.wait), f"http://127.0.0.1:{free_port()}"
    society = await make_society(owner, members=4_000)
    api = await start_api(GUTHI_OTLP_ENDPOINT=refuses.url)
    workers = [start_worker(**SMALL_STEPS, GUTHI_OTLP_ENDPOINT=url) for url in (away, hangs.url)]
    cycle_id = await start_over_http(api, society)
    await becomes(owner, cycle_id, "Active")
    await assert_whole(owner, society, cycle_id)
    async with asyncio.timeout(15):  # GUTHI_STOP_SECONDS: what a worker is given to stop
        await stopped(*workers, api)
    released.set()
    for collector in (refuses, hangs):
        collector.stop()


async def test_without_an_endpoint_nothing_is_traced(
    owner: asyncpg.Connection, start_api: StartApi, start_worker: StartWorker
) -> None:
    society = await make_society(owner, members=300)
    api = await start_api()
    start_worker()
    cycle_id = await start_over_http(api, society, traceparent=CALLER)
    await becomes(owner, cycle_id, "Active")
    assert (await job_of(owner, cycle_id))["trace_context"] is None


def test_without_an_endpoint_the_sdk_is_not_even_imported() -> None:
    program = (
        "import sys, api.app, worker.main, cli.main; from core.settings import Settings;"
        "from core.tracing import start_tracing, current_traceparent;"
        "start_tracing(Settings(_env_file=None, otlp_endpoint=''), 'api'); assert current_traceparent() is None;"
        # FastAPI imports the API, which does nothing by itself.
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"
    )
    done: Any = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
