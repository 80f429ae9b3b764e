"""The load of the soak: societies whose officers start, import, steer, change and read, and never give up asking."""

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import httpx

from prove.reconnecting import AWAY, Reconnecting
from tests.support import Society

CYCLES = "/api/contribution-cycles"
ANSWER_SECONDS = 4.0
GIVE_UP_SECONDS = 120.0
MOST_UNFINISHED = 6
CHURNED = 100
"""So many members of each society come and go; the others stay, and so must be in every cycle."""
GOOD_ROWS, BAD_ROWS = 30, 2
NOT_NOW = {429, 502, 503}
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class NoAnswerError(Exception):
    """An officer gave up: found and recorded, and nothing more can be done."""


@dataclass
class Record:
    """What was seen and done. `findings` are what must not be: empty when all is well."""

    findings: list[str] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    whose: dict[str, str] = field(default_factory=dict)
    """Every id that was ever shown, and the society it was shown to first."""
    longest_wait: float = 0.0
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    def find(self, what: str) -> None:
        if len(self.findings) < 100:
            self.findings.append(what)

    def see(self, name: str, where: str, text: str) -> None:
        """An answer that society `name` got: every id in it must be its own."""
        self.done["answers checked for others' ids"] += 1
        for shown in set(_UUID.findall(text)):
            if (owner := self.whose.setdefault(shown, name)) != name:
                self.find(f"LEAK: {name} was shown {shown} of {owner} by {where}")

    async def pause(self, seconds: float) -> bool:
        """Wait; True when the load ends meanwhile."""
        try:
            async with asyncio.timeout(seconds):
                await self.closing.wait()
        except TimeoutError:
            pass
        return self.closing.is_set()


class Officer:
    """One society's side of the load."""

    def __init__(
        self, name: str, society: Society, members: Sequence[UUID], urls: Sequence[str], record: Record, seed: str
    ) -> None:
        self.name, self.society, self.record = name, society, record
        self.churned, self.steady = list(members[:CHURNED]), list(members[CHURNED:])
        self.cycles: dict[str, str] = {}
        """The cycle that each key was answered with."""
        self.imports: dict[str, str] = {}
        self.feed = 0
        self.others: list[Officer] = []
        self._bodies: dict[str, dict[str, Any]] = {}
        self._steered: set[str] = set()
        self._urls = urls
        self._chance = random.Random(seed)
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {society.api_key}"}, timeout=ANSWER_SECONDS, trust_env=False
        )

    async def work(self, owner: Reconnecting) -> None:
        """Everything at once, until the record is closing; each ends what it has in hand."""
        async with asyncio.TaskGroup() as tasks:
            for loop in (self._start, self._import, self._change, self._read, self._follow, self._retry):
                tasks.create_task(loop())
            tasks.create_task(self._steer(owner))

    async def close(self) -> None:
        await self._client.aclose()

    async def ask(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, others: bool = False, **body: Any
    ) -> httpx.Response:
        """The answer, however often it takes. `others`: about a thing of another society, whose id it may repeat.

        Raises `NoAnswerError` when there was none in far longer than any fault lasts.
        """
        began = time.monotonic()
        while True:
            try:
                url = self._chance.choice(self._urls) + path
                answer = await self._client.request(method, url, headers=headers, **body)
            except httpx.TransportError:
                self.record.done["requests without an answer"] += 1
            else:
                if answer.status_code == 500:
                    self.record.find(f"500 to {method} {path}: {answer.text}")
                elif answer.status_code not in NOT_NOW and not _in_flight(answer):
                    break
                self.record.done["requests put off"] += 1
            if time.monotonic() > began + GIVE_UP_SECONDS:
                self.record.find(f"LOST: {method} {path} had no answer in {GIVE_UP_SECONDS:.0f} s")
                raise NoAnswerError
            await asyncio.sleep(self._chance.uniform(0.05, 0.2))
        self.record.longest_wait = max(self.record.longest_wait, time.monotonic() - began)
        if not others:
            self.record.see(self.name, f"{method} {path}", answer.text)
        return answer

    async def items(self, path: str) -> list[dict[str, Any]]:
        answer = await self.ask("GET", path)
        if answer.status_code != 200:
            self.record.find(f"{answer.status_code} to GET {path}: {answer.text}")
            return []
        found: list[dict[str, Any]] = answer.json()["items"]
        return found

    async def _start(self) -> None:
        while not await self.record.pause(self._chance.uniform(0.05, 0.6)):
            if len(await self.items(f"{CYCLES}?status=Initializing")) >= MOST_UNFINISHED:
                continue
            key = f"{self.name}-{len(self._bodies)}"
            strategy = self._chance.choice(("queued", "queued", "queued", "auto", "inline"))
            self._bodies[key] = {
                "tierId": str(self.society.tier_id),
                "deceasedMemberId": str(self.society.dead),
                "strategy": strategy,
            }
            twice = self._chance.random() < 0.3
            await asyncio.gather(*(self._start_once(key) for _ in range(1 + twice)))
            if self._chance.random() < 0.2:
                await self._start_once(self._chance.choice(list(self._bodies)))

    async def _start_once(self, key: str) -> None:
        answer = await self.ask("POST", CYCLES, json=self._bodies[key], headers={"Idempotency-Key": key})
        if answer.status_code not in (201, 202):
            self.record.find(f"{answer.status_code} to a start: {answer.text}")
            return
        cycle_id = answer.json()["cycleId"]
        if (first := self.cycles.setdefault(key, cycle_id)) != cycle_id:
            self.record.find(f"DOUBLED: key {key} was answered with {first} and then with {cycle_id}")
        self.record.done["starts replayed"] += "Idempotent-Replayed" in answer.headers

    async def _import(self) -> None:
        while not await self.record.pause(self._chance.uniform(2, 5)):
            name = f"{self.name} import {len(self.imports)}"
            good = [f"{name} row {n},A,AG{n % 3 + 1}" for n in range(GOOD_ROWS)]
            bad = [f"{name} bad {n},NOWHERE,AG1" for n in range(BAD_ROWS)]
            content = "\n".join(["full_name,tier,agent", *good, *bad, ""])
            headers = {"Idempotency-Key": name.replace(" ", "-"), "Content-Type": "text/csv"}
            self.imports[name] = ""
            answer = await self.ask("POST", "/api/members/import", content=content, headers=headers)
            if answer.status_code != 202:
                self.record.find(f"{answer.status_code} to an import: {answer.text}")
                continue
            self.imports[name] = answer.json()["jobId"]

    async def _change(self) -> None:
        while not await self.record.pause(self._chance.uniform(0.1, 0.5)):
            path = f"/api/members/{self._chance.choice(self.churned)}"
            member = (await self.ask("GET", path)).json()
            status = "Inactive" if member["status"] == "Active" else "Active"
            answer = await self.ask("PATCH", path, json={"version": member["version"], "status": status})
            # 409: an answer that was lost, and the change is there.
            if answer.status_code not in (200, 409):
                self.record.find(f"{answer.status_code} to a change: {answer.text}")
            self.record.done["memberships changed"] += answer.status_code == 200

    async def _steer(self, owner: Reconnecting) -> None:
        while not await self.record.pause(self._chance.uniform(0.2, 1.2)):
            state = self._chance.choice(("Processing", "Processing", "Queued", "Paused"))
            jobs = await self.items(f"/api/jobs?state={state}&kind=create_contributions")
            fresh = [job for job in jobs if job["jobId"] not in self._steered]
            if not fresh:
                continue
            job = self._chance.choice(fresh)
            self._steered.add(job["jobId"])
            if self._chance.random() < 0.75:
                await self._pause_and_resume(job, owner)
            else:
                await self._verb(job, "cancel")

    async def _pause_and_resume(self, job: dict[str, Any], owner: Reconnecting) -> None:
        """Each job once only: so nobody has ever asked for a resume that could still be under way."""
        if await self._verb(job, "pause"):
            try:
                stood = await _rows(owner, job["subjectId"])
                await asyncio.sleep(self._chance.uniform(0, 0.5))
                stands = await _rows(owner, job["subjectId"])
            except AWAY:
                pass  # PostgreSQL is away: nobody can look
            else:
                self.record.done["pauses held against the rows"] += 1
                if stands != stood:
                    self.record.find(f"{stood} rows when pause had answered, {stands} later: job {job['jobId']}")
        await self._verb(job, "resume")

    async def _verb(self, job: dict[str, Any], verb: str) -> bool:
        answer = await self.ask("POST", f"/api/jobs/{job['jobId']}/{verb}")
        if answer.status_code not in (200, 409):
            self.record.find(f"{answer.status_code} to {verb}: {answer.text}")
        self.record.done[f"jobs told to {verb}"] += answer.status_code == 200
        return answer.status_code == 200

    async def _retry(self) -> None:
        while not await self.record.pause(1):
            await self.retry_failed()

    async def retry_failed(self) -> None:
        for job in await self.items("/api/jobs?state=Failed"):
            self.record.done[f"failed: {(job['error'] or '').partition(' (')[0][:70]}"] += 1
            await self._verb(job, "retry")

    async def resume_paused(self) -> None:
        for job in await self.items("/api/jobs?state=Paused"):
            await self._verb(job, "resume")

    async def _read(self) -> None:
        while not await self.record.pause(self._chance.uniform(0, 0.3)):
            if self._chance.random() < 0.4:
                await self._read_anothers()
                continue
            cycle = self._chance.choice(list(self.cycles.values()) or [str(uuid4())])
            path = self._chance.choice(
                (
                    *(CYCLES, f"{CYCLES}/{cycle}", f"{CYCLES}/{cycle}/creation-progress"),
                    *(f"{CYCLES}/{cycle}/contributions?limit=200", "/api/members?limit=200", "/api/jobs?limit=200"),
                    *("/api/tiers", "/api/agents", "/api/users", "/api/keys", "/api/audit?limit=200"),
                )
            )
            await self.ask("GET", path)

    async def _read_anothers(self) -> None:
        other = self._chance.choice(self.others)
        cycle = self._chance.choice(list(other.cycles.values()) or [str(uuid4())])
        path = self._chance.choice(
            (
                *(f"{CYCLES}/{cycle}", f"{CYCLES}/{cycle}/creation-progress", f"{CYCLES}/{cycle}/contributions"),
                *(f"/api/members/{other.society.dead}", f"/api/tiers/{other.society.tier_id}"),
            )
        )
        answer = await self.ask("GET", path, others=True)
        self.record.done["tries at others' things"] += 1
        if answer.status_code != 404:
            self.record.find(f"LEAK: {self.name} got {answer.status_code} for {other.name}'s {path}: {answer.text}")

    async def _follow(self) -> None:
        while not await self.record.pause(0.5):
            await self.follow_feed()

    async def follow_feed(self) -> int:
        """Read on from the last position; returns how many events there were."""
        events = await self.items(f"/api/events?after={self.feed}&limit=1000")
        for event in events:
            if event["position"] != self.feed + 1:
                self.record.find(f"the feed of {self.name} went from {self.feed} to {event['position']}")
            self.feed = event["position"]
        return len(events)


def _in_flight(answer: httpx.Response) -> bool:
    return answer.status_code == 409 and answer.json().get("code") == "IDEMPOTENCY_KEY_IN_FLIGHT"


async def _rows(owner: Reconnecting, cycle_id: str) -> int:
    count: int = await owner.fetchval("SELECT count(*) FROM contributions WHERE cycle_id = $1", UUID(cycle_id))
    return count
