"""Users and keys over HTTP: made, changed, rotated, revoked; somebody can always manage the society."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest
from fastapi import FastAPI

from tests.api.conftest import client_of
from tests.api.expect import UNKNOWN, refused, unchanged
from tests.support import Society

RAM = {"email": "ram@x.np", "name": "Ram", "role": "operator"}


async def made(client: httpx.AsyncClient, **changes: str) -> dict[str, Any]:
    answer = await client.post("/api/users", json={**RAM, **changes})
    assert answer.status_code == 201, answer.text
    user: dict[str, Any] = answer.json()
    return user


async def key_of(client: httpx.AsyncClient, user_id: object, **body: object) -> dict[str, Any]:
    answer = await client.post(f"/api/users/{user_id}/keys", json=body)
    assert answer.status_code == 201, answer.text
    key: dict[str, Any] = answer.json()
    return key


async def second_admin(client: httpx.AsyncClient) -> tuple[dict[str, Any], dict[str, Any]]:
    user = await made(client, email="sita@x.np", role="admin")
    return user, await key_of(client, user["userId"])


def in_an_hour() -> str:
    return (datetime.now(UTC) + timedelta(hours=1)).isoformat()


async def test_a_new_user_is_shown_listed_and_has_no_key(client: httpx.AsyncClient) -> None:
    user = await made(client)
    assert set(user) == {"userId", "isActive", "version", "createdAt", "updatedAt", *RAM}
    assert {**RAM, "isActive": True, "version": 1}.items() <= user.items()
    shown = await client.get(f"/api/users/{user['userId']}")
    assert (shown.json(), shown.headers["etag"]) == (user, '"v1"')
    assert (await client.get("/api/users")).json()["items"][-1] == user
    assert [key for key in (await client.get("/api/keys")).json()["items"] if key["userId"] == user["userId"]] == []


async def test_an_address_is_one_person_however_it_is_written(
    client: httpx.AsyncClient, owner: asyncpg.Connection
) -> None:
    answers = await asyncio.gather(*(client.post("/api/users", json=RAM) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409]
    async with unchanged(owner):
        answer = await client.post("/api/users", json={**RAM, "email": "RAM@x.np"})
        assert refused(answer, 409, "DUPLICATE_RESOURCE")["context"] == {"field": "email"}


async def test_a_change_of_role_holds_at_the_next_request(app: FastAPI, client: httpx.AsyncClient) -> None:
    user = await made(client)
    async with client_of(app, (await key_of(client, user["userId"]))["apiKey"]) as ram:
        agent = {"code": "N1", "name": "N"}
        assert (await ram.post("/api/agents", json=agent)).status_code == 201
        where = f"/api/users/{user['userId']}"
        changed = await client.patch(where, json={"role": "viewer", "name": "Ram B", "version": 1})
        assert {"role": "viewer", "name": "Ram B", "version": 2}.items() <= changed.json().items()
        refused(await ram.post("/api/agents", json={**agent, "code": "N2"}), 403, "INSUFFICIENT_PERMISSIONS")


async def test_deactivation_in_the_middle_of_a_run_of_requests(app: FastAPI, client: httpx.AsyncClient) -> None:
    user = await made(client)
    where = f"/api/users/{user['userId']}"
    async with client_of(app, (await key_of(client, user["userId"]))["apiKey"]) as ram:
        for version in (1, 3):
            for n in range(20):
                body = {"code": f"D{version}-{n}", "name": "D"}
                if n == 10:
                    off = await client.patch(where, json={"isActive": False, "version": version})
                    assert off.json()["isActive"] is False
                answer = await ram.post("/api/agents", json=body)
                if n < 10:
                    assert answer.status_code == 201
                else:
                    refused(answer, 403, "USER_INACTIVE")
            on = await client.patch(where, json={"isActive": True, "version": version + 1})
            assert on.json()["isActive"] is True


async def test_a_key_is_shown_once_and_kept_nowhere(
    app: FastAPI, client: httpx.AsyncClient, owner: asyncpg.Connection, society: Society
) -> None:
    answer = await client.post(f"/api/users/{society.user_id}/keys")  # without a body, too
    key = answer.json()
    assert answer.headers["cache-control"] == "no-store"
    assert set(key) == {"keyId", "userId", "createdAt", "expiresAt", "revokedAt", "replacedBy", "apiKey"}
    async with client_of(app, key["apiKey"]) as holder:
        assert (await holder.get("/api/tiers")).status_code == 200
    listed = await client.get("/api/keys")
    assert {name: key[name] for name in key if name != "apiKey"} in listed.json()["items"]
    secret = key["apiKey"].split("_")[2]
    assert secret not in listed.text and "sha256" not in listed.text.lower()
    assert await owner.fetchval("SELECT count(*) FROM idempotency_keys") == 0
    assert secret not in str(await owner.fetch("SELECT * FROM api_keys"))
    refused(await client.post(f"/api/users/{UNKNOWN}/keys"), 404, "USER_NOT_FOUND")


async def test_a_key_expires_when_it_was_said_to(app: FastAPI, client: httpx.AsyncClient, society: Society) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=3)
    key = await key_of(client, society.user_id, expiresAt=soon.isoformat())
    async with client_of(app, key["apiKey"]) as holder:
        assert (await holder.get("/api/tiers")).status_code == 200
        await asyncio.sleep((soon - datetime.now(UTC)).total_seconds() + 0.05)
        refused(await holder.get("/api/tiers"), 401, "SESSION_EXPIRED")


async def test_rotation_fails_no_request(app: FastAPI, client: httpx.AsyncClient) -> None:
    user = await made(client)
    held = await key_of(client, user["userId"])
    keys = [held["apiKey"]]
    statuses: list[int] = []
    is_over = False

    async def use() -> None:
        async with client_of(app, "") as ram:
            while not is_over:
                headers = {"Authorization": f"Bearer {keys[-1]}"}
                await asyncio.sleep(0.002)  # the key it read may be the old one by now
                statuses.append((await ram.get("/api/tiers", headers=headers)).status_code)

    users = [asyncio.create_task(use()) for _ in range(4)]
    for _ in range(5):
        await asyncio.sleep(0.05)
        answer = await client.post(f"/api/keys/{held['keyId']}/rotate")
        assert answer.status_code == 201
        held = answer.json()
        keys.append(held["apiKey"])
    await asyncio.sleep(0.05)
    is_over = True
    await asyncio.gather(*users)
    assert len(statuses) > 20 and set(statuses) == {200}
    assert len(set(keys)) == 6


async def test_a_rotated_key_lives_for_its_grace_period(
    app: FastAPI, client: httpx.AsyncClient, society: Society, owner: asyncpg.Connection
) -> None:
    old = await key_of(client, society.user_id)
    new = (await client.post(f"/api/keys/{old['keyId']}/rotate")).json()
    shown = {key["keyId"]: key for key in (await client.get("/api/keys")).json()["items"]}[old["keyId"]]
    assert shown["replacedBy"] == new["keyId"] and new["expiresAt"] is None
    left = datetime.fromisoformat(shown["expiresAt"]) - datetime.now(UTC)
    assert timedelta(seconds=50) < left <= timedelta(seconds=60)
    problem = refused(await client.post(f"/api/keys/{old['keyId']}/rotate"), 409, "INVALID_STATUS_TRANSITION")
    assert problem["context"] == {"current": "Rotated", "wanted": "Rotated"}
    await owner.execute("UPDATE api_keys SET expires_at = now() WHERE key_id = $1", old["keyId"])
    async with client_of(app, old["apiKey"]) as holder:
        refused(await holder.get("/api/tiers"), 401, "SESSION_EXPIRED")
    async with client_of(app, new["apiKey"]) as holder:
        assert (await holder.get("/api/tiers")).status_code == 200


async def test_a_rotated_key_is_made_for_as_long_as_the_old_one(client: httpx.AsyncClient, society: Society) -> None:
    old = await key_of(client, society.user_id, expiresAt=in_an_hour())
    new = (await client.post(f"/api/keys/{old['keyId']}/rotate", json={})).json()
    life = datetime.fromisoformat(new["expiresAt"]) - datetime.now(UTC)
    assert timedelta(minutes=59) < life <= timedelta(minutes=61)


async def test_of_two_rotations_at_once_one_wins(client: httpx.AsyncClient, society: Society) -> None:
    old = await key_of(client, society.user_id)
    answers = await asyncio.gather(*(client.post(f"/api/keys/{old['keyId']}/rotate") for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409]


async def test_a_revoked_key_opens_nothing_at_once(app: FastAPI, client: httpx.AsyncClient, society: Society) -> None:
    key = await key_of(client, society.user_id)
    where = f"/api/keys/{key['keyId']}"
    async with client_of(app, key["apiKey"]) as holder:
        assert (await holder.get("/api/tiers")).status_code == 200
        for _ in range(2):  # again is fine
            answer = await client.delete(where)
            assert (answer.status_code, answer.content) == (204, b"")
            refused(await holder.get("/api/tiers"), 401, "UNAUTHORIZED")
    refused(await client.post(f"{where}/rotate"), 409, "INVALID_STATUS_TRANSITION")
    refused(await client.delete(f"/api/keys/{UNKNOWN}"), 404, "KEY_NOT_FOUND")


@pytest.mark.parametrize("change", [{"role": "operator"}, {"isActive": False}])
async def test_the_last_admin_cannot_be_taken_away(
    client: httpx.AsyncClient, society: Society, owner: asyncpg.Connection, change: dict[str, Any]
) -> None:
    where = f"/api/users/{society.user_id}"
    keyless = await made(client, email="no@x.np", role="admin")
    expiring = await made(client, email="brief@x.np", role="admin")
    await key_of(client, expiring["userId"], expiresAt=in_an_hour())
    async with unchanged(owner):
        refused(await client.patch(where, json={"version": 1, **change}), 409, "LAST_ADMIN")
    assert (await client.patch(where, json={"version": 1, "name": "Still here"})).status_code == 200
    await key_of(client, keyless["userId"])
    assert (await client.patch(where, json={"version": 2, **change})).status_code == 200


async def test_nor_the_last_admins_last_key(
    client: httpx.AsyncClient, society: Society, owner: asyncpg.Connection
) -> None:
    (key,) = (await client.get("/api/keys")).json()["items"]
    await key_of(client, society.user_id, expiresAt=in_an_hour())
    where = f"/api/keys/{key['keyId']}"
    async with unchanged(owner):
        refused(await client.delete(where), 409, "LAST_ADMIN")
        refused(await client.post(f"{where}/rotate", json={"expiresAt": in_an_hour()}), 409, "LAST_ADMIN")
    assert (await client.post(f"{where}/rotate")).status_code == 201  # the new one stays
    assert (await client.delete(where)).status_code == 204


@pytest.mark.parametrize("change", [{"role": "viewer"}, {"isActive": False}])
async def test_two_admins_who_demote_each_other_at_once(
    app: FastAPI, client: httpx.AsyncClient, society: Society, owner: asyncpg.Connection, change: dict[str, Any]
) -> None:
    sita, key = await second_admin(client)
    versions = {str(society.user_id): 1, sita["userId"]: 1}
    async with client_of(app, key["apiKey"]) as other:
        for _ in range(8):
            answers = await asyncio.gather(
                *(
                    who.patch(f"/api/users/{whom}", json={"version": versions[whom], **change})
                    for who, whom in ((client, sita["userId"]), (other, str(society.user_id)))
                )
            )
            assert sorted(answer.status_code for answer in answers) in ([200, 409], [200, 403])
            (row,) = await owner.fetch("SELECT user_id, email FROM users WHERE role = 'admin' AND is_active")
            assert row["email"] in ("admin@localhost", "sita@x.np")
            await owner.execute("UPDATE users SET role = 'admin', is_active = true WHERE email <> $1", row["email"])
            versions = {str(r["user_id"]): r["version"] for r in await owner.fetch("SELECT * FROM users")}


async def test_two_admins_who_delete_each_others_keys_at_once(
    app: FastAPI, client: httpx.AsyncClient, owner: asyncpg.Connection
) -> None:
    (mine,) = (await client.get("/api/keys")).json()["items"]
    _, theirs = await second_admin(client)
    async with client_of(app, theirs["apiKey"]) as other:
        answers = await asyncio.gather(
            client.delete(f"/api/keys/{theirs['keyId']}"), other.delete(f"/api/keys/{mine['keyId']}")
        )
    assert sorted(answer.status_code for answer in answers) in ([204, 409], [204, 401])
    assert await owner.fetchval("SELECT count(*) FROM api_keys WHERE revoked_at IS NULL") == 1
