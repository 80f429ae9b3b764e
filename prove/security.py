"""That nobody reaches another tenant's things, and that no word is taken for more than a word."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator

import asyncpg
import httpx
from fastapi import FastAPI

from api.app import create_app
from domain.api_keys import new_api_key
from domain.roles import PERMISSIONS
from jobs.engine.engine import Engine
from jobs.engine.runner import run_job
from jobs.maintenance.chain_audit import chain_audit
from prove.report import Options, Outcome, table
from prove.security_calls import Attacker
from prove.security_tables import Tables
from prove.world import Place, World
from tests.api.expect import fingerprint
from tests.support import Society

MEMBERS = 20
WORDS_IN_EACH_PLACE = 2
CYCLES = "/api/contribution-cycles"


async def prove(options: Options) -> Outcome:
    """A few words in each place of each call; all of them with `--long`."""
    wrong: list[str] = []
    tried: Counter[str] = Counter()
    most = 1_000 if options.long else WORDS_IN_EACH_PLACE
    async with World.open(MEMBERS) as world, world.place(rate_limit="") as place, _app(place) as app:
        ids = await _fill(app, place, place.society)
        await _fill(app, place, place.neighbour)
        for part in (_tables, _others_ids, _words):
            found, counts = await part(app, place, ids, random.Random(options.seed), most)
            wrong += found
            tried += counts
    return Outcome(table(["tried", "times"], [[what, f"{tried[what]:,}"] for what in sorted(tried)]), wrong)


@contextlib.asynccontextmanager
async def _app(place: Place) -> AsyncIterator[FastAPI]:
    app = create_app(place.settings)
    async with app.router.lifespan_context(app):
        yield app


def _client(app: FastAPI, api_key: str) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://api", headers={"Authorization": f"Bearer {api_key}"})


async def _fill(app: FastAPI, place: Place, society: Society) -> dict[str, str]:
    """A row in every table of the society's; returns one id of everything by the names that calls have for it."""
    engine: Engine = app.state.engine
    async with _client(app, society.api_key) as client:
        start = {"tierId": str(society.tier_id), "deceasedMemberId": str(society.dead)}
        made = await client.post(CYCLES, json={**start, "strategy": "inline"}, headers={"Idempotency-Key": "first"})
        cycle = made.json()
        headers = {"Idempotency-Key": "second", "Content-Type": "text/csv"}
        await client.post("/api/members/import", content="full_name,tier\nRam,A\n", headers=headers)
        jobs = (await client.get("/api/jobs?kind=notify_agents_new_cycle")).json()["items"]
        for job in jobs:
            await run_job(engine, society.tenant_id, job["jobId"])
        queued = await client.post(CYCLES, json={**start, "strategy": "queued"}, headers={"Idempotency-Key": "third"})
        agents = (await client.get("/api/agents")).json()["items"]
        members = (await client.get("/api/members?status=Active")).json()["items"]
        keys = (await client.get("/api/keys")).json()["items"]
    await chain_audit(engine)
    return {
        **start,
        "cycle_id": cycle["cycleId"],
        "job_id": queued.json()["jobId"],
        "member_id": members[0]["memberId"],
        "tier_id": start["tierId"],
        "agent_id": agents[0]["agentId"],
        "agentId": agents[0]["agentId"],
        "user_id": str(society.user_id),
        "key_id": keys[0]["keyId"],
    }


async def _tables(
    _app: FastAPI, place: Place, _ids: dict[str, str], _chance: random.Random, _most: int
) -> tuple[list[str], Counter[str]]:
    app = await asyncpg.connect(place.settings.database_url)
    try:
        tables = Tables(place.owner, app, place.neighbour.tenant_id, place.society.tenant_id)
        await tables.try_all()
    finally:
        await app.close()
    return tables.wrong, tables.tried


async def _others_ids(
    app: FastAPI, place: Place, ids: dict[str, str], _chance: random.Random, _most: int
) -> tuple[list[str], Counter[str]]:
    """The neighbour's people of every role, with the society's ids: nothing is told, nothing changes."""
    wrong, tried = [], Counter[str]()
    document = app.openapi()
    for role in PERMISSIONS:
        user_id = await place.owner.fetchval(
            "INSERT INTO users (tenant_id, email, name, role) VALUES ($1, $2, 'x', $2) RETURNING user_id",
            place.neighbour.tenant_id,
            role,
        )
        key = await new_api_key(place.owner, place.neighbour.tenant_id, user_id)
        before = await fingerprint(place.owner)
        async with _client(app, key.api_key) as client:
            attacker = Attacker(client, ids)
            await attacker.try_others_ids(document, role)
        if await fingerprint(place.owner) != before:
            wrong.append(f"{role}: calls with another tenant's ids have changed something")
        wrong += attacker.wrong
        tried += attacker.tried
    return wrong, tried


async def _words(
    app: FastAPI, place: Place, ids: dict[str, str], chance: random.Random, most: int
) -> tuple[list[str], Counter[str]]:
    """The neighbour's admin sends them: the society's rows and the schema stay as they are, and nobody is told more."""
    before = await _untouchable(place)
    async with _client(app, place.neighbour.api_key) as client:
        attacker = Attacker(client, ids)
        await attacker.try_words(app.openapi(), chance, most)
    await asyncio.sleep(0)
    if await _untouchable(place) != before:
        attacker.wrong.append("the society's rows, the schema or the roles are not what they were")
    return attacker.wrong, attacker.tried


async def _untouchable(place: Place) -> list[tuple[object, ...]]:
    """Everything that the neighbour has no business with: the society's rows, all that exists, and who may what."""
    tables = await place.owner.fetch(
        "SELECT c.relname AS name FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid"
        " AND a.attname = 'tenant_id' WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition"
        " AND c.relnamespace = 'public'::regnamespace ORDER BY 1"
    )
    rows = " UNION ALL ".join(
        f"SELECT '{t['name']}', count(*), coalesce(sum(hashtextextended(r::text, 0)::numeric), 0)"
        f" FROM {t['name']} AS r WHERE tenant_id = $1"
        for t in tables
    )
    things = (
        "SELECT 'relations', count(*), sum(hashtextextended(relname || relkind::text || coalesce(relacl::text, ''), 0))"
        " FROM pg_class WHERE relnamespace = 'public'::regnamespace UNION ALL"
        " SELECT 'functions', count(*), sum(hashtextextended(prosrc || coalesce(proacl::text, ''), 0))"
        " FROM pg_proc WHERE pronamespace = 'public'::regnamespace UNION ALL"
        " SELECT 'roles', count(*), sum(hashtextextended(r::text, 0)) FROM pg_roles AS r"
    )
    found = await place.owner.fetch(rows, place.society.tenant_id) + await place.owner.fetch(things)
    return [tuple(row) for row in found]
