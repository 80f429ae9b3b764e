"""The tour: a member's way from the application to a contribution cycle that contains them, over HTTP.

Read it from top to bottom: each call of `walk` is one that an officer's program would make.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

from cli.client import ApiClient, ApiError, open_api
from core.settings import load_settings
from db.embedded import free_port

Item = dict[str, Any]
MOST_SECONDS = 120
ENDS = ("Active", "Failed", "Cancelled")


def walk(api: ApiClient) -> None:
    """Every run makes a tier of its own, so that it can be repeated wherever there is a society."""
    run = uuid4().hex[:6].upper()

    say("A tier says what its members owe when one of them dies")
    amounts = {"contributionAmount": "100.00", "benefitAmount": "500000.00"}
    tier = api.post("/api/tiers", {"code": f"TOUR-{run}", "name": f"Tier of tour {run}", **amounts})
    agent = api.post("/api/agents", {"code": f"TOUR-{run}", "name": "Hari Shrestha"})
    show(f"tier {tier['code']}: {tier['contributionAmount']} a member; agent {agent['code']} collects")

    say("Sita applies. She is Pending: no number yet, and she owes nothing")
    sita = register(api, tier, "Sita Tamang", "F", agentId=agent["agentId"], phone="+977 9812345678")
    show_member(sita)

    say("An officer looks into it, the society takes her in (now she is given her number), her entry is completed")
    for name in ("review", "approve", "activate"):
        sita = step(api, sita, name)
        show_member(sita)

    say("Somebody who read her record before cannot overwrite what has happened since")
    try:
        step(api, {**sita, "version": 1}, "suspend", reason="an old screen")
    except ApiError as error:
        show(f"refused: {error}")

    say("She falls behind and is suspended, pays up, and is resumed")
    sita = step(api, sita, "suspend", reason="two contributions behind")
    show_member(sita)
    sita = step(api, sita, "resume", reason="paid up")
    show_member(sita)

    say("Others join: Gita becomes active, Maya's application is rejected, Ram becomes active")
    gita = admit(api, tier, "Gita Gurung", "F")
    maya = step(api, register(api, tier, "Maya Rai", "F"), "reject", reason="lives abroad")
    ram = admit(api, tier, "Ram Thapa", "M")
    for member in (gita, maya, ram):
        show_member(member)

    say("Ram dies. That is final")
    ram = step(api, ram, "report-death", reason="told by his son")
    show_member(ram)
    try:
        step(api, ram, "resume")
    except ApiError as error:
        show(f"refused: {error}")

    say("A contribution cycle is started for him; workers create it while we watch")
    body = {"tierId": tier["tierId"], "deceasedMemberId": ram["memberId"], "strategy": "queued"}
    cycle = api.post("/api/contribution-cycles", body, idempotency_key=str(uuid4()))
    cycle = watch(api, cycle)
    show(f"{cycle['totalMembers']} members owe {cycle['contributionAmount']} each, by {cycle['deadline']}")

    say("Sita owes, Gita owes; Maya, who was rejected, and Ram himself do not")
    path = f"/api/contribution-cycles/{cycle['cycleId']}/contributions"
    owing = {owed["memberId"]: owed for owed in api.items(path)}
    for member in (sita, gita, maya, ram):
        owed = owing.get(member["memberId"])
        amount = f"{owed['contributionAmount']}, {owed['contributionStatus']}" if owed else "nothing"
        show(f"{member['fullName']}: {amount}")
    if owing.keys() != {sita["memberId"], gita["memberId"]}:
        raise SystemExit("tour: the wrong members owe")
    say("The tour is over")


def register(api: ApiClient, tier: Item, full_name: str, gender: str, **more: str) -> Item:
    """The key makes it safe to ask again when no answer came: the member is made once."""
    body = {"fullName": full_name, "gender": gender, "tierId": tier["tierId"], **more}
    member: Item = api.post("/api/members", body, idempotency_key=str(uuid4()))
    return member


def step(api: ApiClient, member: Item, name: str, **more: str) -> Item:
    """The version says which state of the record the officer has seen."""
    changed: Item = api.post(f"/api/members/{member['memberId']}/{name}", {"version": member["version"], **more})
    return changed


def admit(api: ApiClient, tier: Item, full_name: str, gender: str) -> Item:
    member = register(api, tier, full_name, gender)
    for name in ("review", "approve", "activate"):
        member = step(api, member, name)
    return member


def watch(api: ApiClient, cycle: Item) -> Item:
    """The cycle, once it is made."""
    path = f"/api/contribution-cycles/{cycle['cycleId']}"
    give_up_at = time.monotonic() + MOST_SECONDS
    while (now := api.get(f"{path}/creation-progress"))["status"] not in ENDS:
        if time.monotonic() > give_up_at:
            raise SystemExit(f"tour: cycle {cycle['cycleCode']} is still {now['status']}: does a worker run?")
        time.sleep(0.1)
    show(f"cycle {cycle['cycleCode']} is {now['status']}, {now['progress']['percentage']} %")
    made: Item = api.get(path)
    return made


def say(sentence: str) -> None:
    print(f"\n{sentence}.", flush=True)


def show(fact: str) -> None:
    print(f"  {fact}", flush=True)


def show_member(member: Item) -> None:
    reason = f" ({member['statusReason']})" if member["statusReason"] else ""
    show(f"{member['fullName']}: {member['status']}{reason}, number {member['memberNumber'] or 'not given'}")


@contextlib.contextmanager
def system_of_its_own() -> Iterator[ApiClient]:
    """`guthi dev --empty` in a temporary folder, stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="gt", dir="/tmp") as folder:  # a socket's path must be short
        directory = Path(folder) / "d"
        print(f"Starting a system of its own in {directory}", flush=True)
        dev = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "dev", "--empty", "--data-dir", directory, "--port", str(free_port())],
            cwd=Path(__file__).parents[1],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert dev.stdout is not None
            if not any(line.startswith("ready ") for line in dev.stdout):
                raise SystemExit("tour: guthi dev did not start")
            record = json.loads((directory / "dev.json").read_text())
            with ApiClient(record["api_url"], record["api_key"]) as api:
                yield api
        finally:
            dev.terminate()
            dev.communicate()


if __name__ == "__main__":
    with open_api() if load_settings().api_key else system_of_its_own() as api:
        walk(api)
