"""Pictures of the pages, on the sample data, with one cycle that is being made slowly enough to be seen."""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal, NamedTuple
from uuid import uuid4

import asyncpg
import httpx
from playwright.async_api import Browser, BrowserContext, async_playwright

from db.embedded import free_port

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
# Many shards and batches, though the sample is small.
SETTINGS = {"GUTHI_BATCH_ROWS": "50", "GUTHI_SHARD_ROWS": "500"}
SLOWLY = """
CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.4); RETURN NULL; END $$;
CREATE TRIGGER dawdle BEFORE INSERT ON contributions FOR EACH STATEMENT EXECUTE FUNCTION dawdle();
"""


class Look(NamedTuple):
    width: int
    scheme: Literal["light", "dark"]
    language: str


WIDE, DARK, NARROW = Look(1280, "light", "en"), Look(1280, "dark", "en"), Look(360, "light", "ne")
LOOKS = (WIDE, Look(1280, "dark", "ne"), NARROW, Look(360, "dark", "en"))
CHOSEN = (("cycle-running", "RUNNING", WIDE), ("jobs-dark", "/jobs", DARK), ("cycle-nepali", "RUNNING", NARROW))
"""For the README."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--all", action="store_true")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gs", dir="/tmp") as directory:
        command = [sys.executable, "-m", "cli.main", "dev", "--data-dir", directory, "--port", str(free_port())]
        dev = subprocess.Popen(command, env={**os.environ, **SETTINGS}, stdout=subprocess.PIPE, text=True)
        try:
            assert dev.stdout is not None
            if not any("Ctrl-C" in line for line in dev.stdout):  # its last line, once the sample is made
                raise SystemExit("guthi dev did not start")
            asyncio.run(take(json.loads((Path(directory) / "dev.json").read_text()), asked.out, asked.all))
        finally:
            dev.terminate()
            dev.wait()


async def take(record: dict[str, Any], out: Path, everything: bool) -> None:
    owner = await asyncpg.connect(record["admin_database_url"])
    headers = {"Authorization": f"Bearer {record['api_key']}"}
    async with httpx.AsyncClient(base_url=record["api_url"], headers=headers) as api, async_playwright() as playwright:
        (made,) = (await api.get("/api/contribution-cycles")).json()["items"]
        await owner.execute(SLOWLY)
        body = {"tierId": made["tierId"], "deceasedMemberId": made["deceasedMemberId"], "strategy": "queued"}
        key = {"Idempotency-Key": str(uuid4())}
        running = (await api.post("/api/contribution-cycles", json=body, headers=key)).json()
        places = {
            "MADE": f"/cycles/{made['cycleId']}",
            "RUNNING": f"/cycles/{running['cycleId']}",
            "JOB": f"/jobs/{running['jobId']}",
        }
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        people: dict[Look, BrowserContext] = {}
        people[WIDE] = await signed_in(browser, record, WIDE)
        page = await people[WIDE].new_page()
        await page.goto(places["RUNNING"])
        await page.wait_for_function("document.querySelector('[data-bar]').getAttribute('aria-valuenow') >= 35")
        for name, where, look in every_page() if everything else CHOSEN:
            if look not in people:
                people[look] = await signed_in(browser, record, look)
            page = await people[look].new_page()
            await page.goto(places.get(where, where))
            await page.wait_for_timeout(1_500)  # for the first of the live numbers
            await page.screenshot(path=out / f"{name}.png", full_page=everything)
            await page.close()
        await browser.close()
    await owner.close()


def every_page() -> list[tuple[str, str, Look]]:
    pages = {
        "running": "RUNNING",
        "cycles": "/cycles",
        "jobs": "/jobs",
        "job": "JOB",
        "workers": "/workers",
        "made": "MADE",
        "start": "/start-cycle?tier=A",
        "maintenance": "/maintenance",
        "runs": "/maintenance/sweep",
        "users": "/users",
        "nothing": "/nothing",
        "sign-in": "/sign-in",
    }
    return [
        (f"{name}-{look.width}-{look.scheme}-{look.language}", path, look)
        for name, path in pages.items()
        for look in LOOKS
    ]


async def signed_in(browser: Browser, record: dict[str, Any], look: Look) -> BrowserContext:
    context = await browser.new_context(
        base_url=record["api_url"],
        viewport={"width": look.width, "height": 900 if look.width > 500 else 720},
        color_scheme=look.scheme,
        locale=look.language,
        reduced_motion="reduce",
    )
    page = await context.new_page()
    await page.goto("/sign-in")
    await page.fill("#key", record["api_key"])
    await page.press("#key", "Enter")
    await page.wait_for_url("**/cycles")
    await page.close()
    return context


if __name__ == "__main__":
    main()
