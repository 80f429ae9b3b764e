"""Logs by structlog: an event name plus fields; JSON outside a terminal; secrets and phones never."""

import logging
import re
import sys
from typing import Any

import structlog

from core.settings import Settings
from core.telemetry import subscribe

# Frequent events that would drown the rest; metrics still count them.
QUIET_EVENTS = {
    "batch_done",
    "events_relayed",
    "job_picked_up",
    "job_rung",
    "job_start_began",
    "job_start_ended",
    "jobs_counted",
    "request_began",
    "request_ended",
    "shard_run_began",
    "shard_run_ended",
    "sweep_done",
}
WARNINGS = {
    "attempt_failed",
    "lease_expired",
    "redis_away",
    "progress_not_written",
    "loop_failed",
    "rollback_failed",
    "session_secret_made",
    "sign_in_refused",
}
ERRORS = {"job_failed", "on_failed_raised", "invariant_broken", "request_failed", "maintenance_failed"}
_API_KEY = re.compile(r"guthi_[0-9a-f]{32}_[A-Za-z0-9_-]+")
_SESSION = re.compile(r"eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_PHONE = re.compile(r"\+\d{8,15}\b")


def configure_logs(settings: Settings) -> None:
    """Sends this process's events, and what its libraries log, to stderr. Call it once, at the start."""
    console = settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _Redact(settings.secrets),
    ]
    renderer = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer(default=str)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared[:2], structlog.stdlib.ExtraAdder(), *shared[2:]],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _Redact(settings.secrets),
                renderer,
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=settings.log_level.upper(), force=True)
    # arq logs each pickup and uvicorn each request: ours say the same with ids.
    for name in ("arq", "uvicorn.access", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    subscribe(_log_event)


def _log_event(event: str, fields: dict[str, Any]) -> None:
    if event in QUIET_EVENTS and not logging.getLogger("guthi").isEnabledFor(logging.DEBUG):
        return
    level = "debug" if event in QUIET_EVENTS else "info"
    level = "warning" if event in WARNINGS else "error" if event in ERRORS else level
    getattr(structlog.get_logger("guthi"), level)(event, **fields)


class _Redact:
    """Last line of defence: takes known secrets, API keys, sessions and phone numbers out of every value."""

    def __init__(self, secrets: tuple[str, ...]) -> None:
        self._secrets = secrets

    def __call__(self, _logger: Any, _method: str, entry: Any) -> Any:
        for name, value in entry.items():
            if not name.startswith("_"):
                entry[name] = self._clean(value)
        return entry

    def _clean(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._clean(part) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [self._clean(part) for part in value]
        if not isinstance(value, str):
            return value
        for secret in self._secrets:
            value = value.replace(secret, "***")
        return _PHONE.sub("***", _SESSION.sub("***", _API_KEY.sub("guthi_***", value)))
