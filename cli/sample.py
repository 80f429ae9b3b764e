"""The sample society of `guthi dev`: made through the API once, as a user would, and a first cycle on it.

A repeat goes on where the first run was interrupted and makes nothing twice.
"""

import csv
import io
import random
import sys
import threading
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from faker import Faker

from cli.client import ApiClient, ApiError
from cli.progress import Reading, follow
from core.errors import GuthiError

TIERS = (("A", "100.00", "500000.00"), ("B", "250.00", "1250000.00"), ("C", "500.00", "2500000.00"))
# 7,000 members; the one deceased of tier A is the reason for the first cycle.
MEMBERS = {("A", "Active"): 5_000, ("A", "Deceased"): 1, ("B", "Active"): 1_250, ("C", "Active"): 665}
MEMBERS |= {("B", "Inactive"): 50, ("C", "Inactive"): 34}
AGENTS = 20
JOB_ENDS = {"Completed", "Failed", "Cancelled"}
CYCLE_ENDS = {"Active", "Completed", "Failed", "Cancelled"}
COLUMNS = ("full_name", "gender", "tier", "agent", "phone", "email", "status", "joined_on", "member_number")


class SampleError(GuthiError):
    """A job of the sample did not end well; the message says which and why."""


def make(api: ApiClient, stopped: threading.Event) -> None:
    """Tiers, agents, members, and a cycle that has become `Active`. Returns early when `stopped` is set."""
    if api.get("/api/contribution-cycles", limit=1)["items"]:
        return
    faker, chance = Faker("ne_NP"), random.Random(7)
    faker.seed_instance(7)
    _make_tiers_and_agents(api, faker)
    _import_members(api, members_csv(faker, chance), stopped)
    if not stopped.is_set():
        _run_first_cycle(api, stopped)


def print_next_steps(api_url: str, api_key: str, directory: Path) -> None:
    guthi = _short(Path(sys.executable).with_name("guthi"))
    print(
        f"\nDashboard:          {api_url}/\n"
        f"Sign in with:       {api_key}\n"
        f"API documentation:  {api_url}/docs\n"
        f"Logs:               {_short(directory / 'logs')}\n"
        "Try next, in another terminal:\n"
        f"  source {_short(directory / 'env')}\n"
        f"  {guthi} cycles list\n"
        f"  {guthi} jobs list\n"
        f"  {guthi} doctor\n"
        "Ctrl-C stops everything; the data stays.",
        flush=True,
    )


def members_csv(faker: Faker, chance: random.Random) -> bytes:
    """The members in the import's format, in a mixed order, the same ones each time."""
    kinds = [kind for kind, count in MEMBERS.items() for _ in range(count)]
    chance.shuffle(kinds)
    text = io.StringIO()
    lines = csv.writer(text)
    lines.writerow(COLUMNS)
    lines.writerows(_member(faker, chance, number, *kind) for number, kind in enumerate(kinds, 1))
    return text.getvalue().encode()


def _member(faker: Faker, chance: random.Random, number: int, tier: str, status: str) -> tuple[str, ...]:
    gender = chance.choices("FMO", (49, 50, 1))[0]
    first = faker.first_name_male() if gender == "M" else faker.first_name_female()
    joined = date(2014, 1, 1) + timedelta(days=chance.randrange(4_000))
    agent = f"AG{chance.randrange(AGENTS) + 1:02d}"
    contact = (f"+97798{number:08d}", f"member{number}@example.org")
    return (f"{first} {faker.last_name()}", gender, tier, agent, *contact, status, joined.isoformat(), "")


def _make_tiers_and_agents(api: ApiClient, faker: Faker) -> None:
    for code, contribution, benefit in TIERS:
        amounts = {"contributionAmount": contribution, "benefitAmount": benefit}
        _post_once(api, "/api/tiers", {"code": code, "name": f"Tier {code}", **amounts})
    for number in range(1, AGENTS + 1):
        code, name = f"AG{number:02d}", f"{faker.first_name()} {faker.last_name()}"
        _post_once(api, "/api/agents", {"code": code, "name": name, "email": f"{code.lower()}@example.org"})


def _post_once(api: ApiClient, path: str, body: dict[str, str]) -> None:
    try:
        api.post(path, body)
    except ApiError as error:
        if error.code != "DUPLICATE_RESOURCE":
            raise


def _import_members(api: ApiClient, members: bytes, stopped: threading.Event) -> None:
    jobs = [job for job in api.get("/api/jobs")["items"] if job["kind"] == "import_members"]
    job = jobs[0] if jobs else api.post_csv("/api/members/import", members, idempotency_key="sample-members")

    def read() -> Reading:
        now = api.get(f"/api/jobs/{job['jobId']}")
        return Reading(now["state"], now["processed"], now["total"], now["state"] in JOB_ENDS)

    last = follow("members", read, stopped)
    if last.ended and last.state != "Completed":
        raise SampleError(f"the import of the members is {last.state}")


def _run_first_cycle(api: ApiClient, stopped: threading.Event) -> None:
    tier = next(tier for tier in api.get("/api/tiers")["items"] if tier["code"] == "A")
    deceased = api.get("/api/members", status="Deceased", tier="A", limit=1)["items"][0]
    body = {"tierId": tier["tierId"], "deceasedMemberId": deceased["memberId"], "strategy": "queued"}
    cycle = api.post("/api/contribution-cycles", body, idempotency_key="sample-first-cycle")
    who = f"{deceased['fullName']} ({deceased['memberNumber']})"
    print(f"{who} of tier A has died: cycle {cycle['cycleCode']}", flush=True)

    def read() -> Reading:
        now: dict[str, Any] = api.get(f"/api/contribution-cycles/{cycle['cycleId']}/creation-progress")
        progress = now["progress"]
        return Reading(now["status"], progress["processed"], progress["total"] or None, now["status"] in CYCLE_ENDS)

    last = follow("contributions", read, stopped)
    if last.ended and last.state != "Active":
        raise SampleError(f"cycle {cycle['cycleCode']} is {last.state}")


def _short(path: Path) -> str:
    """Relative where that is shorter to type."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
