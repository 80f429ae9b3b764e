"""Who am I, and what may I do."""

from collections.abc import Awaitable, Callable

import httpx
import pytest
from fastapi import FastAPI

from domain.roles import PERMISSIONS, Role
from tests.api.conftest import client_of
from tests.api.expect import refused
from tests.support import Society


async def test_the_admin_is_told_who_they_are(client: httpx.AsyncClient, society: Society) -> None:
    me = (await client.get("/api/me")).json()
    assert {"STEER_JOBS", "VIEW"} <= set(me.pop("permissions"))
    assert me == {
        "userId": str(society.user_id),
        "name": "Administrator",
        "email": "admin@localhost",
        "role": "admin",
        "tenantId": str(society.tenant_id),
        "tenantName": "Society of 100",
    }


@pytest.mark.parametrize("role", Role)
async def test_each_role_is_told_its_permissions(
    app: FastAPI, key_for: Callable[[str], Awaitable[str]], role: Role
) -> None:
    async with client_of(app, await key_for(role)) as client:
        me = (await client.get("/api/me")).json()
    assert (me["role"], me["permissions"]) == (role, sorted(permission.name for permission in PERMISSIONS[role]))


async def test_it_takes_no_parameters(client: httpx.AsyncClient) -> None:
    refused(await client.get("/api/me?userId=1"), 422, "INVALID_INPUT")
