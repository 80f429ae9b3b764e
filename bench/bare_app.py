"""The peer of the progress endpoint: a bare FastAPI handler that looks up a key and reads a hash. Nothing more."""

import contextlib
import os
import sys
from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import redis.asyncio
import uvicorn
from fastapi import FastAPI


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.pool = await asyncpg.create_pool(os.environ["GUTHI_ADMIN_DATABASE_URL"], max_size=10)
    app.state.redis = redis.asyncio.from_url(os.environ["GUTHI_REDIS_URL"])
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/{key_id}/{name}")
async def read(key_id: UUID, name: str) -> dict[str, str]:
    await app.state.pool.fetchrow("SELECT tenant_id, user_id FROM api_keys WHERE key_id = $1", key_id)
    stored = await app.state.redis.hgetall(name)
    return {field.decode(): value.decode() for field, value in stored.items()}


if __name__ == "__main__":
    uvicorn.run(
        app,
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,
        server_header=False,
    )
