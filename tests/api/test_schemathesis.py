"""The API against its own OpenAPI document: schemathesis, its default checks, a real database, the app in-process."""

import asyncio
import csv
import io
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import strategies as st
from schemathesis.config import SchemathesisConfig
from schemathesis.python.asgi import shutdown_lifespans
from starlette.types import Receive, Scope, Send

from api.app import create_app
from core.settings import Settings
from domain.member_csv import COLUMNS
from tests.conftest import Servers
from tests.support import make_society

MOST_EXAMPLES = 30
DATABASE = "schemathesis"
# A key of our own choice: the tests are made before the database is.
KEY_ID, SECRET = UUID(int=1), "5" * 64


def _as_csv(rows: list[list[str]]) -> bytes:
    file = io.StringIO()
    csv.writer(file).writerows([COLUMNS, *rows])
    return file.getvalue().encode()


# A schema cannot say what a CSV is; whatever stands in its fields, a file that can be read is taken.
_FIELD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
schemathesis.openapi.media_type(
    "text/csv", st.lists(st.lists(_FIELD, min_size=1, max_size=len(COLUMNS)), max_size=3).map(_as_csv)
)


class _Running:
    """Stands in for the app until its database exists: the tests are made of the document before that."""

    app: FastAPI
    known: Mapping[str, str]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


running = _Running()
document = schemathesis.openapi.from_dict(
    create_app(Settings(_env_file=None, database_url="postgresql://nowhere")).openapi(),
    config=SchemathesisConfig.from_dict(
        {
            "generation": {"max-examples": MOST_EXAMPLES, "deterministic": True, "database": "none"},
        }
    ),
)
document.app = running
# These have no end: the client would wait for it. They are read in test_job_streams and test_event_streams.
document = document.exclude(path_regex="^/api/(jobs|events|notices)/stream$")


@document.auth()
class ApiKey:
    """The key of the society's admin."""

    def get(self, _case: Any, _context: Any) -> str:
        return f"Bearer guthi_{KEY_ID.hex}_{SECRET}"

    def set(self, case: Any, data: str, _context: Any) -> None:
        case.headers["Authorization"] = data


@pytest.fixture(scope="module", autouse=True)
def app_with_a_society(servers: Servers) -> Iterator[None]:
    settings = Settings(
        _env_file=None,
        database_url=servers.postgres.app_url.replace("/guthi?", f"/{DATABASE}?"),
        admin_database_url=servers.postgres.admin_url.replace("/guthi?", f"/{DATABASE}?"),
        redis_url=servers.valkey.url,
        queue_name=f"queue:{DATABASE}",
    )
    running.known = asyncio.run(_prepare(servers, settings))
    running.app = create_app(settings)
    yield
    shutdown_lifespans()
    asyncio.run(_drop(servers))


@document.parametrize()
def test_every_answer_is_as_documented(case: Any) -> None:
    # Cases are made before any id is known.
    case.path_parameters = _with_known(case.path_parameters)
    if isinstance(case.body, dict):
        case.body = _with_known(case.body)
        # What a schema cannot say: a key expires in times to come.
        if _is_time(case.body.get("expiresAt")):
            case.body["expiresAt"] = (datetime.now(UTC) + timedelta(days=1)).isoformat()
        # What a schema cannot say: nobody dies tomorrow.
        if isinstance(died_on := case.body.get("diedOn"), str) and re.fullmatch(r"\d{4}-\d\d-\d\d", died_on):
            case.body["diedOn"] = "2020" + died_on[4:].replace("02-29", "02-28")
    # What a schema cannot say: a key belongs to one request.
    if re.fullmatch("[!-~]{1,255}", (case.headers or {}).get("Idempotency-Key", "")):
        case.headers["Idempotency-Key"] = str(uuid4())
    # Nor this: If-Match stands in for a body's version.
    if case.headers:
        case.headers.pop("If-Match", None)
    case.call_and_validate()


async def _prepare(servers: Servers, settings: Settings) -> dict[str, str]:
    """One id of each thing by the name that parameters have for it."""
    await _execute(servers, f"CREATE DATABASE {DATABASE} TEMPLATE guthi OWNER guthi_owner")
    owner = await asyncpg.connect(settings.admin_database_url)
    society = await make_society(owner, members=20)
    await owner.execute(
        "INSERT INTO api_keys (tenant_id, key_id, user_id, secret_sha256) VALUES ($1, $2, $3, sha256($4))",
        society.tenant_id,
        KEY_ID,
        society.user_id,
        SECRET.encode(),
    )
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        headers = {"Authorization": f"Bearer {society.api_key}", "Idempotency-Key": "first"}
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://api", headers=headers
        ) as client:
            body = {"tierId": str(society.tier_id), "deceasedMemberId": str(society.dead)}
            cycle = (await client.post("/api/contribution-cycles", json=body)).json()
            agents = (await client.get("/api/agents")).json()
            members = (await client.get("/api/members?status=Active")).json()
    await owner.close()
    return {
        **body,
        "cycle_id": cycle["cycleId"],
        "job_id": cycle["jobId"],
        "tier_id": str(society.tier_id),
        "agent_id": agents["items"][0]["agentId"],
        "member_id": members["items"][0]["memberId"],
        "agentId": agents["items"][0]["agentId"],
    }


def _with_known(values: Any) -> Any:
    """Half of the valid ids become ids of things that exist; what was made wrong stays wrong."""
    known = running.known
    return values and {
        name: known[name] if name in known and _is_even_uuid(value) else value for name, value in values.items()
    }


def _is_even_uuid(value: object) -> bool:
    try:
        return UUID(str(value)).int % 2 == 0
    except ValueError:
        return False


def _is_time(value: object) -> bool:
    try:
        return datetime.fromisoformat(str(value)).tzinfo is not None
    except ValueError:
        return False


async def _drop(servers: Servers) -> None:
    await _execute(servers, f"DROP DATABASE {DATABASE} WITH (FORCE)")


async def _execute(servers: Servers, statement: str) -> None:
    connection = await asyncpg.connect(servers.postgres.superuser_url)
    await connection.execute(statement)
    await connection.close()
