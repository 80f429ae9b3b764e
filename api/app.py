"""The API: thin. Authenticate, validate, make one call, answer."""

import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.routing import APIRoute

from api import (
    agents,
    audit,
    cycles,
    events,
    health,
    jobs,
    maintenance,
    me,
    member_lifecycle,
    members,
    tiers,
    users,
    workers,
)
from api.feeds import Feeds
from api.limits import BodyLimit
from api.pages import install_pages
from api.pages.headers import PageHeaders
from api.problems import PROBLEM_RESPONSES, Problem, install_problem_handlers
from api.rate_limits import RateLimitHeaders, RateLimits
from api.requests import RequestIds
from api.sessions import Sessions, SignInLimits
from api.streams import Gate
from core.logs import configure_logs
from core.metrics import collect_metrics
from core.settings import Settings, load_settings
from core.tracing import start_tracing, stop_tracing
from db.database import Database
from jobs.engine.bell import connect_redis
from jobs.kinds import KINDS, build_engine


def app_from_environment() -> FastAPI:
    """What uvicorn starts: `uvicorn --factory api.app:app_from_environment`. Raises `SettingsError`."""
    settings = load_settings()
    configure_logs(settings)
    collect_metrics(kind.name for kind in KINDS)
    start_tracing(settings, "api")
    return create_app(settings)


app = app_from_environment


def create_app(settings: Settings) -> FastAPI:
    """It starts while PostgreSQL or Redis are away; `/readyz` tells."""
    settings.require("database_url")

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database, redis = await Database.connect(settings), connect_redis(settings)
        app.state.engine = build_engine(settings, database, redis)
        app.state.rate_limits = RateLimits(settings, redis)
        app.state.sessions = Sessions(settings, database)
        app.state.sign_in_limits = SignInLimits(settings, redis)
        app.state.feeds, app.state.gate = Feeds(redis), Gate(database)
        try:
            yield
        finally:
            await app.state.feeds.close()
            await app.state.engine.progress.close()
            await redis.aclose(close_connection_pool=True)
            await database.close()
            await stop_tracing()

    app = FastAPI(
        title="Guthi",
        version="0.1.0",
        description="Contribution cycles of mutual-aid societies. Every error is an RFC 9457 problem with a `code`.",
        lifespan=lifespan,
        responses=PROBLEM_RESPONSES,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # ours tell more, and no error's message
        redirect_slashes=False,  # a redirect would name a host that the client made up
    )
    modules = (
        *(me, cycles, jobs, maintenance, workers, members, member_lifecycle, tiers, agents, users),
        *(events, audit, health),
    )
    routers = [module.router for module in modules]
    app.router.routes.append(cycles.polled)
    for router in routers:
        app.include_router(router)
    install_problem_handlers(app, [r for router in routers for r in router.routes if isinstance(r, APIRoute)])

    install_pages(app)
    app.state.settings = settings
    app.add_middleware(BodyLimit, settings=settings)
    app.add_middleware(RateLimitHeaders)
    _wrap_all(app)
    _document_problems(app)
    return app


def _wrap_all(app: FastAPI) -> None:
    """Around the answer to a defect, too, which Starlette gives outside of every middleware."""
    build = app.build_middleware_stack
    app.build_middleware_stack = lambda: RequestIds(PageHeaders(build()))  # type: ignore[method-assign]


def _document_problems(app: FastAPI) -> None:
    """FastAPI documents only what is a model of an answer; the problem is one of every answer."""
    build = app.openapi

    def openapi() -> dict[str, object]:
        document = build()
        document["components"]["schemas"]["Problem"] = Problem.model_json_schema()
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # the way FastAPI documents to extend OpenAPI
