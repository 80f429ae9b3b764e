"""Traces, off unless `GUTHI_OTLP_ENDPOINT` is set: only then is anything of OpenTelemetry imported (`core.spans`)."""

import asyncio
from typing import TYPE_CHECKING

from core.settings import Settings
from core.telemetry import subscribe

if TYPE_CHECKING:
    from core.spans import Spans

_spans: "Spans | None" = None


def start_tracing(settings: Settings, role: str) -> None:
    """From now on this process's events become spans of the service `<GUTHI_SERVICE_NAME>-<role>`. Call it once."""
    global _spans
    if settings.otlp_endpoint:
        from core.spans import Spans

        _spans = Spans(settings, role)
        subscribe(_spans)


async def stop_tracing() -> None:
    """Send what has not been sent, for a few seconds at most; nothing when tracing is off."""
    if _spans is not None:
        await asyncio.to_thread(_spans.close)


def current_traceparent() -> str | None:
    """The W3C `traceparent` of what is going on here, for whoever carries it on; None when tracing is off."""
    return None if _spans is None else _spans.current_traceparent()
