"""Every setting of the system, read once at start-up from `GUTHI_*` variables and `.env`."""

import os
import re
import socket
from functools import cached_property
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from core.errors import SettingsError


class Settings(BaseSettings):
    """Frozen: built once by `load_settings`, then passed in; nothing else reads the environment.

    A field `batch_rows` is the variable `GUTHI_BATCH_ROWS`. Unknown `GUTHI_*` variables are ignored.
    """

    model_config = SettingsConfigDict(env_prefix="GUTHI_", env_file=".env", extra="ignore", frozen=True)

    # --- where things are
    database_url: str = ""
    """PostgreSQL as the app's role (`guthi_app`: owns nothing, bound by row-level security)."""
    admin_database_url: str = ""
    """PostgreSQL as the owner (`guthi_owner`: BYPASSRLS). Only migrate, tenants, doctor and backups use it."""
    redis_url: str = "redis://127.0.0.1:6379/0"
    """Redis or Valkey: the doorbell and the scoreboard, never the truth."""
    api_url: str = "http://127.0.0.1:8000"
    """Where the operators' commands find the API."""
    api_key: str = ""
    """The key that the operators' commands send; `guthi_<keyid>_<secret>`."""
    api_patience_seconds: Annotated[float, Field(ge=0, le=3_600)] = 15.0
    """How long those commands ask again while the API is away, as when it is restarted. 0: not at all.
    What watches or follows waits without end, once it has had a first answer."""

    # --- connections of one process
    database_pool_size: Annotated[int, Field(ge=2, le=500)] = 10
    """Most PostgreSQL connections of one process."""
    database_pool_wait_seconds: Annotated[float, Field(gt=0)] = 2.0
    """Longest wait for a free connection; past it the API answers 503 with `Retry-After`."""
    statement_cache_size: Annotated[int, Field(ge=0)] = 200
    """Prepared statements a connection keeps. 0 turns them off, as PgBouncer below 1.21 needs."""

    # --- the batch-job engine
    batch_rows: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Keys a batch takes. 0: sized so that a batch takes about `batch_milliseconds`."""
    batch_milliseconds: Annotated[int, Field(ge=5, le=2_000)] = 75
    """What a batch aims to take when `batch_rows` is 0; a pause waits for at most one batch."""
    lease_seconds: Annotated[float, Field(ge=0.5, le=300)] = 5.0
    """How long a shard stays with a worker that has stopped answering. Every batch renews it."""
    slice_seconds: Annotated[float, Field(ge=0.1, le=300)] = 20.0
    """Longest stretch of one job in a worker's slot before the others in the queue get their turn."""
    sweep_seconds: Annotated[int, Field(ge=1, le=30)] = 2
    """How often the sweeper rings for work that should run and does not."""
    job_parallelism: Annotated[int, Field(ge=1, le=64)] = 2
    """Shards of one job that run at once, so that a giant leaves slots to the others."""
    shard_rows: Annotated[int, Field(ge=1)] = 20_000
    """Fewest keys worth a shard of their own; a job below twice this runs as one shard."""
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    """Attempts without progress before a job is `Failed`; progress starts the count anew."""
    backoff_seconds: Annotated[float, Field(ge=0, le=600)] = 2.0
    """Wait before the second attempt; doubled for each further one, with up to a quarter of jitter."""
    inline_below: Annotated[int, Field(ge=0, le=100_000)] = 1_000
    """`auto` runs a cycle of fewer members in the request itself. 0: always queued."""

    # --- the worker
    queue_name: str = "guthi:queue"
    """arq's queue; deployments that share a Redis need different ones."""
    worker_name: Annotated[str, Field(max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""
    """What operators know this process by. Empty: its host and its process id."""
    worker_concurrency: Annotated[int, Field(ge=1, le=100)] = 5
    """Slices that one worker process runs at once."""
    stop_seconds: Annotated[float, Field(ge=1)] = 15.0
    """After SIGTERM: longest wait for the batches in hand, before they are cancelled and rolled back."""
    worker_metrics_port: Annotated[int, Field(ge=0, le=65_535)] = 0
    """Port of the worker's own `/metrics`. 0: none."""

    # --- the API
    max_body_bytes: Annotated[int, Field(ge=1_024)] = 1_048_576
    """Largest JSON body (413 above)."""
    max_import_bytes: Annotated[int, Field(ge=1_024)] = 1_073_741_824
    """Largest members' CSV (413 above)."""
    progress_ttl_seconds: Annotated[int, Field(ge=1)] = 86_400
    """How long Redis keeps the progress of a job that no longer moves."""
    idempotency_hours: Annotated[int, Field(ge=1)] = 24
    """How long a stored answer is replayed."""
    key_grace_seconds: Annotated[int, Field(ge=0, le=86_400)] = 60
    """How long a rotated API key still opens, so that no request fails while its clients switch. 0: not at all."""
    rate_limit: str = "1000000/minute"
    """Most requests of one API key, over all API processes: a number a second, minute, hour or day. Empty: no limit."""

    # --- the pages
    session_secret: str = ""
    """Signs the pages' cookies; the same for all API processes, 32 random bytes or more. Empty: made at the start."""
    session_hours: Annotated[int, Field(ge=1, le=720)] = 12
    """How long somebody stays signed in to the pages."""

    # --- logs
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"
    """`auto`: readable in a terminal, JSON elsewhere."""

    # --- traces
    otlp_endpoint: str = ""
    """Where OpenTelemetry traces are sent by OTLP/HTTP, such as http://collector:4318. Empty: there are none."""
    service_name: str = "guthi"
    """What traces call this deployment: its services are `<name>-api` and `<name>-worker`."""

    # --- tests only
    faults: str = ""
    """Named fault points to trip, see `core.faults`. Empty everywhere but in tests."""

    @field_validator("database_url", "admin_database_url")
    @classmethod
    def _is_postgres(cls, url: str) -> str:
        return _check_url(url, "postgresql", "postgres") if url else url

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, url: str) -> str:
        return _check_url(url, "redis", "rediss", "unix")

    @field_validator("otlp_endpoint")
    @classmethod
    def _is_http(cls, url: str) -> str:
        return _check_url(url, "http", "https") if url else url

    @field_validator("rate_limit")
    @classmethod
    def _is_rate(cls, rate: str) -> str:
        if rate and not re.fullmatch(r"[1-9][0-9]{0,11}/(second|minute|hour|day)", rate):
            raise ValueError('must look like "100/minute": a number a second, minute, hour or day')
        return rate

    @field_validator("session_secret")
    @classmethod
    def _is_long(cls, secret: str) -> str:
        if secret and len(secret) < 32:
            raise ValueError("must have at least 32 characters: openssl rand -hex 32")
        return secret

    @model_validator(mode="after")
    def _batches_fit_into_leases(self) -> Self:
        if self.batch_milliseconds > self.lease_seconds * 500:
            raise ValueError("batch_milliseconds must be at most half of lease_seconds")
        return self

    @cached_property
    def secrets(self) -> tuple[str, ...]:
        """What must never appear in a log: passwords of the URLs, the API key, and what signs the cookies."""
        urls = (self.database_url, self.admin_database_url, self.redis_url, self.otlp_endpoint)
        passwords = (urlsplit(url).password for url in urls)
        return tuple(secret for secret in (*passwords, self.api_key, self.session_secret) if secret)

    @cached_property
    def process_name(self) -> str:
        return self.worker_name or f"{socket.gethostname()}:{os.getpid()}"

    def require(self, *names: str) -> None:
        """Raise `SettingsError` naming the first of `names` that is empty."""
        for name in names:
            if not getattr(self, name):
                raise SettingsError(f"GUTHI_{name.upper()} is not set")


def load_settings() -> Settings:
    """Read the environment; raises `SettingsError` with one line for each bad variable."""
    try:
        return Settings()
    except ValueError as error:
        raise SettingsError(_explain(error)) from None


def _check_url(url: str, *schemes: str) -> str:
    """Raises `ValueError` for what no driver could read; it does not repeat the URL, which may hold a password."""
    parts = urlsplit(url)
    if parts.scheme not in schemes:
        raise ValueError(f"must begin with {schemes[0]}://")
    _ = parts.port  # raises for one that is no number
    return url


def _explain(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(
        f"{'GUTHI_' + '_'.join(map(str, e['loc'])).upper() + ': ' if e['loc'] else ''}{e['msg']}"
        for e in error.errors()
    )
