"""Pictures of the pages, with the data of a running demo. `--all`: each page in both widths and both schemes."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--hide-scrollbars"),
]
# Few enough for the README: name, path, width, scheme, language.
CHOSEN = (
    ("cycles", "/cycles", 1280, "light", "en"),
    ("cycle-running", "RUNNING", 1280, "light", "en"),
    ("cycle-running-dark", "RUNNING", 1280, "dark", "en"),
    ("cycle-nepali", "CYCLE", 360, "light", "ne"),
    ("jobs", "/jobs", 1280, "dark", "en"),
    ("maintenance", "/maintenance", 1280, "light", "en"),
    ("workers", "/workers", 1280, "light", "en"),
    ("start", "/start-cycle?tier=A", 1280, "light", "en"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path(".guthi"))
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--all", action="store_true")
    asked = parser.parse_args()
    record = json.loads((asked.data_dir / "dev.json").read_text())
    asked.out.mkdir(parents=True, exist_ok=True)
    api = httpx.Client(base_url=record["api_url"], headers={"Authorization": f"Bearer {record['api_key']}"})
    cycle = api.get("/api/contribution-cycles", params={"status": "Active", "limit": 1}).json()["items"][0]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for name, path, width, scheme, language in every(cycle) if asked.all else iter(CHOSEN):
            page = signed_in(browser, record, width, scheme, language)
            if path == "RUNNING":
                path = f"/cycles/{paused_cycle(api, cycle)['cycleId']}"
            page.goto(path.replace("CYCLE", f"/cycles/{cycle['cycleId']}"))
            page.wait_for_load_state("load")
            page.wait_for_timeout(400)
            page.screenshot(path=asked.out / f"{name}.png", full_page=asked.all)
            page.context.close()


def every(cycle: dict[str, Any]) -> Iterator[tuple[str, str, int, str, str]]:
    pages = {
        "sign-in": "/sign-in",
        "cycles": "/cycles",
        "cycle": "CYCLE",
        "running": "RUNNING",
        "start": "/start-cycle?tier=A",
        "jobs": "/jobs",
        "job": f"/jobs/{cycle['jobId']}",
        "maintenance": "/maintenance",
        "runs": "/maintenance/sweep",
        "workers": "/workers",
        "users": "/users",
        "nothing": "/nothing",
    }
    for name, path in pages.items():
        for width, scheme, language in (
            (1280, "light", "en"),
            (1280, "dark", "ne"),
            (360, "light", "ne"),
            (360, "dark", "en"),
        ):
            yield f"{name}-{width}-{scheme}-{language}", path, width, scheme, language


def paused_cycle(api: httpx.Client, like: dict[str, Any]) -> dict[str, Any]:
    """One that stands in the middle, so that a picture of it is not a matter of luck."""
    found = api.get("/api/contribution-cycles", params={"status": "Initializing", "limit": 1}).json()["items"]
    if found:
        return dict(found[0])
    body = {"tierId": like["tierId"], "deceasedMemberId": like["deceasedMemberId"], "strategy": "queued"}
    started = api.post("/api/contribution-cycles", json=body, headers={"Idempotency-Key": str(uuid4())}).json()
    return dict(started)


def signed_in(browser: Browser, record: dict[str, Any], width: int, scheme: Any, language: str) -> Page:
    context = browser.new_context(
        base_url=record["api_url"],
        viewport={"width": width, "height": 800},
        color_scheme=scheme,
        locale=language,
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.goto("/sign-in")
    page.fill("#key", record["api_key"])
    page.click("main button[type=submit]")
    page.wait_for_url("**/cycles")
    return page


if __name__ == "__main__":
    main()
