"""What operators do, in a real browser: start, watch, steer, be told; nothing is reloaded by hand."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import asyncpg
import httpx
from playwright.async_api import Page, Route, expect

from tests.api.expect import start_of
from tests.browser.conftest import MEMBERS, SECRET, Meet, Site, key_of_role
from tests.cycles import SMALL_STEPS, becomes, count_rows, rows_reach, slow_batches
from tests.support import Api, Worker, make_society

StartWorker = Callable[..., Worker]
BATCH_SECONDS = 0.25
STATE = "#live .head .state"
WATCH_THE_BAR = """() => {
    window.steps = [];
    window.shifted = 0;
    const now = () => Number(document.querySelector("[data-bar]").getAttribute("aria-valuenow"));
    const look = () => {
        if (now() !== window.steps.at(-1)) window.steps.push(now());
        requestAnimationFrame(look);
    };
    look();
    const add = (list) => list.getEntries().forEach((entry) => {
        if (window.steps.length > 2 && now() < 100) window.shifted += entry.value;
    });
    new PerformanceObserver(add).observe({type: "layout-shift"});
}"""
"""Every value that the bar shows, and how far anything on the page moved while it went on."""
LEAVE_WHEN_TOLD = """() => {
    const toasts = document.getElementById("toasts");
    new MutationObserver(() => { location.href = "/jobs"; }).observe(toasts, {childList: true});
}"""


async def started(site: Site) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=site.api.url, headers={"Authorization": f"Bearer {site.key}"}) as client:
        headers = {"Idempotency-Key": "1"}
        body = start_of(site.society, strategy="queued")
        cycle: dict[str, Any] = (await client.post("/api/contribution-cycles", json=body, headers=headers)).json()
        return cycle


async def confirm(page: Page, verb: str) -> None:
    """Press the button, read what will happen, press the one that does it."""
    await page.click(f"#live .card button:text-is('{verb}')")
    dialog = page.locator(".confirm:popover-open")
    await expect(dialog).to_be_visible()
    await dialog.locator("button[type=submit]").click()


async def mark(page: Page) -> None:
    await page.evaluate("window.marked = true")


async def is_marked(page: Page) -> bool:
    """False once the page was loaded anew."""
    return bool(await page.evaluate("window.marked === true"))


async def test_from_the_sign_in_to_active_without_a_reload(
    site: Site, meet: Meet, owner: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await slow_batches(owner, BATCH_SECONDS)
    sita = await meet()
    page = await sita.sign_in(site.key)
    await page.click("text=Start a cycle >> nth=0")
    await page.click("text=Preview")
    await expect(page.locator(".said")).to_have_text("2,000 members will owe a contribution.")
    await expect(page.locator("dd strong")).to_have_text("200,000.00")
    await page.click("button:text-is('Start the cycle')")
    await expect(page.locator("h1")).to_have_text("Cycle CC-2026-00001".replace("2026", str(await _year(owner))))
    await expect(page.locator(STATE)).to_have_text("Initializing")
    await expect(page.locator(".said")).to_have_text("Counting the members who owe…")
    await mark(page)
    await page.evaluate(WATCH_THE_BAR)

    elsewhere = await sita.tab("/workers")
    start_worker(**SMALL_STEPS)
    await expect(page.locator(".said")).to_have_text("Creating contributions for 2,000 members…")
    await expect(
        page.get_by_text("You can safely close this page. We'll notify you when the cycle is ready.")
    ).to_be_visible()
    assert await page.locator("[data-bar] .track").count() == 2
    await expect(page.locator(STATE)).to_have_text("Active")
    await expect(page.locator("[data-v=sum]")).to_have_text("100% (2,000/2,000)")
    steps, shifted = await page.evaluate("[window.steps, window.shifted]")
    # How many it shows, and whether the last is seen here or in the sum above, depends on how busy the machine is.
    assert len(steps) >= 3 and steps == sorted(steps)
    assert shifted < 0.01  # nothing moved but the numbers and the bar
    await expect(page.locator("#contributions tbody tr")).to_have_count(25)
    await expect(page.locator("#rates .curve")).to_have_count(1)
    await expect(page.locator("#log")).to_contain_text("job_completed")
    for tab in (page, elsewhere):
        await expect(tab.locator(".toast")).to_contain_text("is ready")
        await expect(tab.locator(".toast")).to_contain_text("2,000 contributions are made")
    assert await is_marked(page)

    number = await owner.fetchval("SELECT member_number FROM members WHERE member_number = 'OLD-1777'")
    await page.fill("#search", "old-177")
    await page.press("#search", "Enter")
    await expect(page.locator("#contributions tbody tr")).to_have_count(11)  # OLD-177 and OLD-1770 to OLD-1779
    assert number in await page.locator("#contributions").inner_text()
    assert await is_marked(page)
    assert sita.complaints == []


async def test_pause_resume_and_cancel_in_two_tabs(
    site: Site, meet: Meet, owner: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await slow_batches(owner, BATCH_SECONDS)
    cycle = await started(site)
    cycle_id = UUID(cycle["cycleId"])
    sita = await meet()
    page = await sita.sign_in(site.key)
    other = await sita.tab(f"/jobs/{cycle['jobId']}")
    await mark(other)
    await page.click(f"text={cycle['cycleCode']}")
    start_worker(**SMALL_STEPS | {"GUTHI_BATCH_ROWS": 10})  # for longer than all that follows takes
    await rows_reach(owner, cycle_id, 30)

    await confirm(page, "Pause")
    await expect(page.locator(STATE)).to_have_text("Paused")
    rows = await count_rows(owner, cycle_id)
    await expect(page.get_by_text("Paused: no further row appears")).to_be_visible()
    await expect(other.locator(STATE)).to_have_text("Paused")
    await expect(other.locator("#live .card [popovertarget]:text-is('Resume')").first).to_be_visible()
    assert await count_rows(owner, cycle_id) == rows < MEMBERS

    await mark(page)
    await confirm(other, "Resume")
    await rows_reach(owner, cycle_id, rows)
    await expect(page.locator(STATE)).to_have_text("Initializing")
    await confirm(page, "Cancel")
    for tab in (page, other):
        await expect(tab.locator(STATE)).to_have_text("Cancelled")
        await expect(tab.locator("#live .card button")).to_have_count(0)
    await becomes(owner, cycle_id, "Cancelled")

    await page.click(".menu summary")
    await page.click("button:text-is('Sign out')")
    await page.wait_for_url("**/sign-in?why=signed-out")
    await other.bring_to_front()
    await expect(other.locator("#trouble")).to_contain_text("Your session is over")
    await other.click("#trouble a")
    await other.fill("#key", site.key)
    await other.press("#key", "Enter")
    await other.wait_for_url(f"**/jobs/{cycle['jobId']}*")
    assert [said for said in sita.complaints if "401" not in said] == []


async def test_a_failed_one_says_why_and_is_retried(
    site: Site, meet: Meet, owner: asyncpg.Connection, start_worker: StartWorker
) -> None:
    await owner.execute(
        """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'the <script>alert(1)</script> is full' USING ERRCODE = 'data_exception'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON contributions FOR EACH STATEMENT EXECUTE FUNCTION refuse();
        """
    )
    cycle = await started(site)
    sita = await meet()
    page = await sita.sign_in(site.key)
    await page.goto(f"/cycles/{cycle['cycleId']}")
    await expect(page.locator(STATE)).to_have_text("Initializing")
    start_worker(**SMALL_STEPS)  # only now: a browser is told what ends after it came
    await expect(page.locator(STATE)).to_have_text("Failed")
    fault = page.locator("section.fault")
    await expect(fault).to_contain_text("DataError")
    await expect(fault).to_contain_text("the <script>alert(1)</script> is full")
    await expect(fault).to_contain_text("insert_contributions")
    await expect(fault).to_contain_text("Not before the cause is mended")
    await expect(page.locator(".toast")).to_contain_text("has failed")
    await page.click(".toast button")
    await page.reload()
    await owner.execute("DROP TRIGGER refuse ON contributions")
    await confirm(page, "Retry")
    await expect(page.locator(STATE)).to_have_text("Active")
    await expect(page.locator("section.fault")).to_have_count(0)
    await expect(page.locator("#contributions tbody tr")).to_have_count(25)
    await expect(page.locator(".toast")).to_have_count(1)  # what was closed is not told again
    await expect(page.locator(".toast")).to_contain_text("is ready")
    assert sita.complaints == []


async def test_what_was_told_as_the_page_was_left_is_told_again(
    site: Site, meet: Meet, start_worker: StartWorker
) -> None:
    cycle = await started(site)
    sita = await meet()
    page = await sita.sign_in(site.key)
    await page.goto(f"/cycles/{cycle['cycleId']}")
    await page.evaluate(LEAVE_WHEN_TOLD)
    start_worker(**SMALL_STEPS)
    await page.wait_for_url("**/jobs")
    await expect(page.locator(".toast")).to_contain_text("is ready")
    assert sita.complaints == []


async def test_a_lost_connection_is_told_and_comes_back(
    site: Site,
    meet: Meet,
    owner: asyncpg.Connection,
    start_worker: StartWorker,
    start_api: Callable[..., Awaitable[Api]],
) -> None:
    await slow_batches(owner, BATCH_SECONDS)
    cycle = await started(site)
    sita = await meet()
    page = await sita.sign_in(site.key)
    await page.goto(f"/cycles/{cycle['cycleId']}")
    await expect(page.locator(STATE)).to_have_text("Initializing")
    await mark(page)
    site.api.kill()
    await expect(page.locator("#trouble")).to_contain_text("The server cannot be reached")
    start_worker(**SMALL_STEPS)
    await becomes(owner, UUID(cycle["cycleId"]), "Active")  # jobs go on without any page
    await start_api(site.api.port, GUTHI_SESSION_SECRET=SECRET)
    await expect(page.locator("#trouble")).to_be_hidden()
    await expect(page.locator(STATE)).to_have_text("Active")
    await expect(page.locator(".toast")).to_contain_text("is ready")  # read by position, so not missed
    assert await is_marked(page)

    await expect(page.locator("#contributions tbody tr")).to_have_count(25)

    ready = {"postgres": "ok", "redis": "ok"}

    async def answer(route: Route) -> None:
        await route.fulfill(json=ready)

    await page.route("**/readyz", answer)
    for name, said in (("postgres", "The database is away"), ("redis", "Redis is away")):
        ready[name] = "away"
        await expect(page.locator("#trouble")).to_contain_text(said)
        ready[name] = "ok"
    await expect(page.locator("#trouble")).to_be_hidden()


async def test_a_viewer_sees_and_has_no_button_and_another_society_sees_nothing(
    site: Site, meet: Meet, owner: asyncpg.Connection
) -> None:
    cycle = await started(site)
    viewer = await meet()
    page = await viewer.sign_in(await key_of_role(owner, site.society, "viewer"))
    await expect(page.get_by_text(cycle["cycleCode"])).to_be_visible()
    for path in (
        "/cycles",
        f"/cycles/{cycle['cycleId']}",
        "/jobs",
        f"/jobs/{cycle['jobId']}",
        "/maintenance",
        "/workers",
    ):
        await page.goto(path)
        assert await page.locator("main form[method=post], main [popovertarget]").count() == 0, path
        assert await page.locator("text=Start a cycle").count() == 0
    await page.goto("/users")
    await expect(page.locator("h1")).to_have_text("You may not do this")

    other = await make_society(owner, members=3, prefix="OTH")
    stranger = await meet()
    page = await stranger.sign_in(other.api_key)
    for path in ("/cycles", "/jobs"):
        await page.goto(path)
        await expect(page.locator(".empty")).to_be_visible()
        assert cycle["cycleCode"] not in await page.content()
    for path in (f"/cycles/{cycle['cycleId']}", f"/jobs/{cycle['jobId']}"):
        await page.goto(path)
        await expect(page.locator("h1")).to_have_text("There is nothing here")
    assert [said for said in viewer.complaints + stranger.complaints if "403" not in said and "404" not in said] == []


async def test_all_but_the_live_numbers_works_without_javascript(
    site: Site, meet: Meet, owner: asyncpg.Connection
) -> None:
    plain = await meet(java_script_enabled=False)
    page = await plain.sign_in(site.key)
    await page.click("text=Start a cycle >> nth=0")
    await page.click("text=Preview")
    await page.click("button:text-is('Start the cycle')")
    await expect(page.locator(STATE)).to_have_text("Initializing")
    await confirm(page, "Pause")
    await expect(page.locator(STATE)).to_have_text("Paused")
    assert await owner.fetchval("SELECT state FROM batch_jobs") == "Paused"
    await page.goto("/jobs?state=Paused")
    await expect(page.locator(".rows > li")).to_have_count(1)


async def _year(owner: asyncpg.Connection) -> int:
    year: int = await owner.fetchval("SELECT extract(year FROM now())::int")
    return year
