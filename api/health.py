"""Is it alive, is it ready, how is it doing: for orchestrators and Prometheus, without a key."""

import asyncpg
from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from api.context import CurrentEngine
from api.fields import Out
from core.errors import GuthiError
from core.metrics import REGISTRY
from db.queries import sql
from jobs.engine.bell import REDIS_FAULTS

router = APIRouter(tags=["health"])


class Health(Out):
    status: str


class Readiness(Out):
    postgres: str
    redis: str


@router.get("/livez", response_model=Health)
async def livez() -> Health:
    """The process answers; it asks nothing of anybody else."""
    return Health(status="ok")


@router.get(
    "/readyz", response_model=Readiness, responses={503: {"model": Readiness, "description": "PostgreSQL is away"}}
)
async def readyz(engine: CurrentEngine, response: Response) -> Readiness:
    """503 while PostgreSQL is away. Without Redis the API still does its work: cycles start a little later."""
    postgres = redis = "ok"
    try:
        async with engine.database.connection() as connection:
            await sql.ping(connection)
    except (
        *(GuthiError, OSError, TimeoutError),
        *(asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError),
    ):
        postgres = "away"
        response.status_code = 503
        response.headers["Retry-After"] = "1"
    try:
        await engine.bell.depth()
    except REDIS_FAULTS:
        redis = "away"
    return Readiness(postgres=postgres, redis=redis)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics() -> Response:
    """Prometheus text format: this process's counters. The worker has its own."""
    return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)
