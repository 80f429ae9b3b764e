"""Events become spans: one trace leads from the request through the doorbell to each batch.

    GET /api/…           the request; a child of the caller's `traceparent` when there is one
    └── job_start        its job, in the request's transaction: this is what `batch_jobs.trace_context` names
        ├── doorbell     from the ring to a worker's hand
        └── shard_run    one worker's stretch of a shard, whichever worker it is
            ├── batch    one transaction
            └── job_start    what follows, such as telling the agents

A span leaves the process when it has ended, by a thread of its own: a collector that is away or slow costs the spans
and nothing else. A worker that is killed takes its open `shard_run` along, and the batches of its last second.
Only the fields of `ATTRIBUTES` are sent: no secret, phone, name or message of an error is among them.
"""

import logging
import os
import socket
from contextvars import ContextVar
from threading import Thread
from time import time_ns
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from core.settings import Settings

LASTING: Final = {"request": SpanKind.SERVER, "job_start": SpanKind.PRODUCER, "shard_run": SpanKind.CONSUMER}
ATTRIBUTES: Final = {
    "method": "http.request.method",
    "route": "http.route",
    "status": "http.response.status_code",
    **{
        name: f"guthi.{name}"
        for name in ("tenant_id", "request_id", "job_id", "kind", "shard_no", "attempt", "rows", "total", "shards")
    },
}
UNTRACED: Final = {"/livez", "/readyz", "/metrics"}
EVERY_SECONDS, EXPORT_SECONDS = 1, 2
"""How often spans are sent, and how long a collector may take; a stop waits as long."""


class Spans:
    """Subscribes to events. What is open is kept in the context, so each task and request has its own."""

    def __init__(self, settings: Settings, role: str) -> None:
        exporter = OTLPSpanExporter(f"{settings.otlp_endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_SECONDS)
        logging.getLogger("opentelemetry").setLevel(logging.ERROR)  # else each try of each export has a line
        self._sender = BatchSpanProcessor(exporter, schedule_delay_millis=EVERY_SECONDS * 1_000)
        service = {
            "service.name": f"{settings.service_name}-{role}",
            "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
        }
        provider = TracerProvider(resource=Resource.create(service), shutdown_on_exit=False)
        provider.add_span_processor(self._sender)
        self._tracer = provider.get_tracer("guthi")
        self._open: ContextVar[tuple[Span, ...]] = ContextVar("open_spans", default=())
        self._picked_up: ContextVar[tuple[int, float] | None] = ContextVar("picked_up", default=None)

    def close(self) -> None:
        """Send what is left. The library would wait for half a minute; a collector that hangs is not worth that."""
        closing = Thread(target=self._sender.shutdown, daemon=True)
        closing.start()
        closing.join(EXPORT_SECONDS)

    def current_traceparent(self) -> str | None:
        context = self._current().get_span_context()
        if not context.is_valid:
            return None
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def __call__(self, event: str, fields: dict[str, Any]) -> None:
        name, _, edge = event.rpartition("_")
        if name in LASTING and edge == "began":
            self._begin(name, fields)
        elif name in LASTING and edge == "ended":
            self._end(name, fields)
        elif event == "batch_done":
            self._past("batch", self._inside(self._current()), time_ns(), fields["seconds"], fields)
        elif event == "job_picked_up":
            self._picked_up.set((time_ns(), fields["seconds"]))
        elif (current := self._current()).is_recording():
            current.add_event(event, _attributes(fields))
            if event == "attempt_failed":
                current.set_status(StatusCode.ERROR)

    def _begin(self, name: str, fields: dict[str, Any]) -> None:
        parent = self._parent(fields.get("traceparent"))
        if name == "shard_run" and (picked_up := self._picked_up.get()) is not None:
            self._past("doorbell", parent, *picked_up, {})
            self._picked_up.set(None)
        span: Span = INVALID_SPAN
        if fields.get("path") not in UNTRACED:
            span = self._tracer.start_span(name, parent, LASTING[name], _attributes(fields))
        self._open.set((*self._open.get(), span))

    def _end(self, name: str, fields: dict[str, Any]) -> None:
        span = self._current()
        self._open.set(self._open.get()[:-1])
        span.set_attributes(_attributes(fields))
        if name == "request":
            span.update_name(f"{fields['method']} {fields['route']}")
            if (fields["status"] or 0) >= 500:
                span.set_status(StatusCode.ERROR)
        span.end()

    def _past(self, name: str, parent: Context, ended: int, seconds: float, fields: dict[str, Any]) -> None:
        """A span of what is over."""
        began = ended - int(seconds * 1e9)
        self._tracer.start_span(name, parent, attributes=_attributes(fields), start_time=began).end(ended)

    def _current(self) -> Span:
        """The innermost open one, or one that records nothing."""
        open_spans = self._open.get()
        return open_spans[-1] if open_spans else INVALID_SPAN

    def _parent(self, traceparent: str | None) -> Context:
        """What came from elsewhere goes before what is open here; one that cannot be read does not count."""
        if traceparent:
            return TraceContextTextMapPropagator().extract({"traceparent": traceparent}, Context())
        return self._inside(self._current())

    @staticmethod
    def _inside(span: Span) -> Context:
        return set_span_in_context(span, Context())


def _attributes(fields: dict[str, Any]) -> dict[str, str | int]:
    told = {ATTRIBUTES[name]: value for name, value in fields.items() if name in ATTRIBUTES and value is not None}
    return {name: value if isinstance(value, int) else str(value) for name, value in told.items()}
