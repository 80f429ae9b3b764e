"""The screen of `guthi top`: what the API tells, drawn; what keys ask for, asked first and then done.

Threads speak to the API and post messages; all that is drawn is drawn by the app's own loop. What the API gives
goes through `plain` into `Text`, so that a name can neither colour nor steer the terminal.
"""

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import httpx
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Static

from cli.client import AWAY, ApiClient, ApiError, open_api
from cli.following import BACK
from cli.job_rows import FAILED_JOBS, NONE, done_of, in_order, label_of, left_of, rate_of, rows_of
from cli.output import plain, style_of
from cli.running import PATH, RunningJobs, summary_of
from cli.workers import PATH as WORKERS_PATH
from cli.workers import queue_of
from core.errors import GuthiError
from jobs.create_contributions import CreateContributions
from jobs.engine.model import TERMINAL

LOOK_SECONDS = 2.0
# Of the jobs that ended while we looked on, the last ones stay in sight.
ENDED_JOBS = 10
MESSAGE_SECONDS = 15.0
MOST_ROWS = 500
ERROR_CHARACTERS = 240
# Lines that a screen must have to show these beside the jobs.
CHOSEN_FROM, WORKERS_FROM = 14, 20

Job = dict[str, Any]

WHAT_HAPPENS = {
    "pause": "It stops where it stands: once the API has answered, no further row appears until it is resumed.",
    "resume": "It goes on from where it stood.",
    "cancel": "It is given up for good: nothing resumes or retries it.",
    "retry": "It goes on from where it stood, and makes nothing twice. Mend the cause first:",
}
DONE = {"pause": "paused", "resume": "resumed", "cancel": "cancelled", "retry": "retried"}


def run_top() -> None:
    """Returns when the user quits. Raises what the API refused: a key that opens nothing (any more)."""
    with open_api() as api, open_api() as second:
        me = api.get("/api/me")
        app = Top(api, second, me)
        end = app.run()
    if isinstance(end, Exception):
        raise end
    if app.return_code:
        raise SystemExit(app.return_code)


@dataclass(frozen=True)
class Column:
    """`rank` says which goes first when the screen is narrow: the highest."""

    name: str
    width: int
    rank: int
    show: Callable[[Job], str]
    right: bool = False


JOB, STATE, BAR = "JOB", "STATE", "PROGRESS"
COLUMNS = (
    Column(JOB, 14, 0, label_of),
    Column(STATE, 10, 0, lambda job: plain(job["state"])),
    Column("DONE", 4, 1, done_of, right=True),
    Column(BAR, 10, 3, lambda job: ""),
    Column("ROWS", 19, 5, rows_of, right=True),
    Column("RATE", 9, 4, rate_of, right=True),
    Column("LEFT", 7, 2, left_of, right=True),
    Column("BY", 14, 6, lambda job: plain(job["createdByName"])),
)
STRETCH = ((BAR, 16), (JOB, 38), (BAR, 40))
"""Which columns take the width that is left, in this order, and up to what width."""


def columns_for(width: int) -> dict[Column, int]:
    """Those that fit into `width`, each with its own."""
    chosen: list[Column] = []
    left = width
    for column in sorted(COLUMNS, key=lambda column: column.rank):
        if column.width + 2 > left:
            break
        chosen.append(column)
        left -= column.width + 2
    widths = {column: column.width for column in COLUMNS if column in chosen}
    for name, most in STRETCH:
        for column in widths:
            if column.name == name:
                more = min(left, most - widths[column])
                widths[column] += more
                left -= more
    return widths


class Top(App[Exception | None]):
    """The only screen, with a question before it now and then."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { layout: vertical; overflow: hidden; }
    #head { height: 2; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
    #jobs { height: 1fr; min-height: 4; background: $background; }
    #jobs > .datatable--cursor { background: $surface-lighten-2; color: $text; text-style: bold; }
    #none { height: 1fr; padding: 1 1; display: none; }
    #chosen { height: auto; max-height: 6; padding: 0 1; border-top: solid $surface-lighten-2; }
    #workers { height: auto; max-height: 7; padding: 0 1; border-top: solid $surface-lighten-2;
               text-wrap: nowrap; text-overflow: ellipsis; }
    #message { height: auto; max-height: 3; padding: 0 1; display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "steer('pause')", "Pause"),
        Binding("r", "steer('resume')", "Resume"),
        Binding("c", "steer('cancel')", "Cancel"),
        Binding("t", "steer('retry')", "Retry"),
        Binding("q", "quit", "Quit"),
        Binding("ctrl+c", "interrupt", show=False, priority=True),
    ]

    @dataclass
    class Changed(Message):
        jobs: list[Job]

    @dataclass
    class Looked(Message):
        workers: Job
        failed: list[Job]

    @dataclass
    class Said(Message):
        text: str

    @dataclass
    class Steered(Message):
        text: str
        is_done: bool

    def __init__(self, api: ApiClient, second: ApiClient, me: dict[str, Any]) -> None:
        super().__init__()
        self._api, self._second, self._me = api, second, me
        self._jobs: dict[str, Job] = {}
        self._ended: list[str] = []
        self._failed: list[Job] = []
        self._at_work: dict[str, Any] | None = None
        self._away = ""
        self._order: list[str] = []
        self._widths: dict[Column, int] = {}
        self._is_known = False

    def compose(self) -> ComposeResult:
        yield Static(id="head")
        yield DataTable(id="jobs", cursor_type="row", cursor_foreground_priority="renderable")
        yield Static(id="none")
        yield Static(id="chosen")
        yield Static(id="workers")
        yield Static(id="message")
        yield Footer()

    def on_mount(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self.exit, None, 128 + number)
        self._table.focus()
        for work in (self._watch_jobs, self._look_around):
            threading.Thread(target=self._guarded, args=(work,), daemon=True).start()
        self._draw()

    # --- what threads do

    def _guarded(self, work: Callable[[], None]) -> None:
        """A refusal ends the app, and is what it ends with; so is a defect."""
        try:
            work()
        except Exception as error:
            with contextlib.suppress(RuntimeError):  # the app has ended already
                self.call_from_thread(self.exit, error)

    def _tell(self, message: Message) -> None:
        with contextlib.suppress(RuntimeError):  # the app has ended already
            self.post_message(message)

    def _watch_jobs(self) -> None:
        for jobs in RunningJobs(self._api).changes(lambda text: self._tell(self.Said(text))):
            self._tell(self.Changed(jobs))

    def _look_around(self) -> None:
        self._second.patience = 0
        while True:
            try:
                workers = self._second.get(WORKERS_PATH)
                failed = self._second.get(PATH, state="Failed", limit=FAILED_JOBS)["items"]
            except (*AWAY, ApiError) as error:
                if isinstance(error, ApiError) and not error.is_passing:
                    raise
            else:
                self._tell(self.Looked(workers, [summary_of(job) for job in failed]))
            time.sleep(LOOK_SECONDS)

    def _steer(self, job: Job, verb: str) -> None:
        try:
            steered = self._second.post(f"{PATH}/{job['jobId']}/{verb}")
        except httpx.ConnectError:
            self._tell(self.Steered("the API is away: nothing was done", False))
        except httpx.TransportError:
            self._tell(self.Steered("no answer came: look at the job's state before you try again", False))
        except GuthiError as error:
            self._tell(self.Steered(str(error), False))
        else:
            self._tell(self.Steered(f"{label_of(job)} is {plain(steered['state'])} at {rows_of(steered)}", True))

    # --- what they tell

    def on_top_changed(self, message: Changed) -> None:
        self._is_known = True
        for job in message.jobs:
            self._jobs[job["jobId"]] = job
            if job["jobId"] in self._ended:
                self._ended.remove(job["jobId"])
            if job["state"] in TERMINAL:
                self._ended.append(job["jobId"])
        for job_id in self._ended[:-ENDED_JOBS]:
            del self._jobs[job_id]
        self._ended = self._ended[-ENDED_JOBS:]
        self._draw()

    def on_top_looked(self, message: Looked) -> None:
        self._at_work, self._failed = message.workers, message.failed
        self._draw()

    def on_top_said(self, message: Said) -> None:
        self._away = "" if message.text == BACK else message.text
        self._draw()

    def on_top_steered(self, message: Steered) -> None:
        self._say(message.text, "green" if message.is_done else "red")

    # --- what keys do

    def action_interrupt(self) -> None:
        self.exit(return_code=130)

    async def action_quit(self) -> None:
        self.exit()

    def action_steer(self, verb: str) -> None:
        job = self._chosen
        if job is None:
            self._say("no job is chosen", "yellow")
        elif "STEER_JOBS" not in self._me["permissions"]:
            self._say(f"you may not {verb} jobs: your role, {plain(self._me['role'])}, only looks", "yellow")
        elif verb not in job["allowed"]:
            self._say(f"{label_of(job)} is {plain(job['state'])}: it cannot be {DONE[verb]} now", "yellow")
        else:
            self.push_screen(Question(job, verb), lambda yes: self._answered(job, verb, yes))

    def _answered(self, job: Job, verb: str, yes: bool | None) -> None:
        if yes:
            self._say(f"{verb} {label_of(job)} …", "")
            threading.Thread(target=self._guarded, args=(lambda: self._steer(job, verb),), daemon=True).start()

    def on_data_table_row_highlighted(self) -> None:
        self._draw_chosen()

    def on_resize(self) -> None:
        self._draw()

    # --- what is drawn

    @property
    def _table(self) -> DataTable[Text]:
        return self.screen_stack[0].query_one("#jobs", DataTable)

    @property
    def _chosen(self) -> Job | None:
        table = self._table
        if not table.row_count or not table.is_valid_row_index(table.cursor_row):
            return None
        return self._shown().get(self._order[table.cursor_row])

    def _shown(self) -> dict[str, Job]:
        """By id. A failed job that was told of as running again is that."""
        return {**{job["jobId"]: job for job in self._failed}, **self._jobs}

    def _say(self, text: str, style: str) -> None:
        message = self.screen_stack[0].query_one("#message", Static)
        message.update(Text(plain(text), style=style))
        message.display = True
        self._said_at = time.monotonic()
        self.set_timer(MESSAGE_SECONDS, self._hush)

    def _hush(self) -> None:
        if time.monotonic() - self._said_at >= MESSAGE_SECONDS - 0.5:
            self.screen_stack[0].query_one("#message", Static).display = False

    def _draw(self) -> None:
        if not self.is_running:
            return
        self._draw_head()
        self._draw_jobs()
        self._draw_chosen()
        self._draw_workers()

    def _draw_head(self) -> None:
        head = Text.assemble(("guthi top  ", "bold"), plain(self._me["tenantName"]), "  ")
        head.append(plain(f"{self._me['name']}, {self._me['role']}"), "dim")
        if self._away:
            second = Text(plain(self._away), style="bold red")
        elif not self._is_known:
            second = Text("asking the API …", style="dim")
        else:
            second = self._counts()
        head.append("\n").append_text(second)
        self.screen_stack[0].query_one("#head", Static).update(head)

    def _counts(self) -> Text:
        states = [job["state"] for job in self._shown().values()]
        counts = Text()
        for state in ("Processing", "Queued", "Paused", "Failed"):
            if number := states.count(state):
                counts.append(f"{number:,} {state}", style_of(state)).append("  ")
        rate = sum(job["rate"] for job in self._jobs.values() if job["state"] == "Processing")
        return counts.append(f"{rate:,.0f} rows/s" if rate else "")

    def _draw_jobs(self) -> None:
        table, jobs = self._table, in_order(self._shown().values())[:MOST_ROWS]
        none = self.screen_stack[0].query_one("#none", Static)
        table.display, none.display = bool(jobs), not jobs and self._is_known
        none.update("No job runs, and none has failed.\nStart a cycle: guthi cycles start --tier … --deceased …")
        order, widths = [job["jobId"] for job in jobs], columns_for(self.size.width - 2)
        if order == self._order and widths == self._widths:
            for job in jobs:
                for column, width in widths.items():
                    table.update_cell(job["jobId"], column.name, _cell(job, column, width))
            return
        chosen = self._order[table.cursor_row] if table.is_valid_row_index(table.cursor_row) and self._order else None
        table.clear(columns=True)
        for column, width in widths.items():
            label = Text(column.name, justify="right" if column.right else "left")
            table.add_column(label, width=width, key=column.name)
        for job in jobs:
            table.add_row(*(_cell(job, column, width) for column, width in widths.items()), key=job["jobId"])
        self._order, self._widths = order, widths
        if chosen in order:
            table.move_cursor(row=order.index(chosen), animate=False)

    def _draw_chosen(self) -> None:
        job, shown = self._chosen, self.screen_stack[0].query_one("#chosen", Static)
        shown.display = job is not None and self.size.height >= CHOSEN_FROM
        if job is None:
            return
        text = Text.assemble((label_of(job), "bold"), f"  {plain(job['kind'])}  ", (plain(job["jobId"]), "dim"))
        text.append(f"\n{rows_of(job)}  {done_of(job)}")
        for figure, word in ((rate_of(job), ""), (left_of(job), " left")):
            text.append("" if figure == NONE else f"  {figure}{word}")
        text.append(f"  by {plain(job['createdByName'])}, {_clock(job['createdAt'])}", "dim")
        held = [f"{shard['shardNo']}: {plain(shard['leaseHolder'])}" for shard in job["shards"] if shard["leased"]]
        done = sum(shard["done"] for shard in job["shards"])
        if job["shards"]:
            text.append(f"\n{done} of {len(job['shards'])} shards done" + (f", held {', '.join(held)}" if held else ""))
        if job["error"]:
            text.append(f"\n{_short(job['error'])}", "red")
        shown.update(text)

    def _draw_workers(self) -> None:
        shown, workers = self.screen_stack[0].query_one("#workers", Static), self._at_work
        shown.display = workers is not None and self.size.height >= WORKERS_FROM
        if workers is None:
            return
        items = workers["items"]
        text = Text.assemble((f"{len(items)} worker{'' if len(items) == 1 else 's'}", "bold"), f"  {queue_of(workers)}")
        if workers["redis"] != "ok":
            text.append("  Redis is away: who works cannot be seen", "red")
        elif not items:
            text.append("  nobody works: start a 'guthi worker'", "red")
        for worker in items:
            text.append(f"\n{plain(worker['name'])}  {worker['busy']}/{worker['concurrency']}  ")
            doing = (f"{label_of(task)} #{task['shardNo']} since {_clock(task['since'])}" for task in worker["running"])
            text.append(", ".join(doing) or "idle", "" if worker["running"] else "dim")
        shown.update(text)


class Question(ModalScreen[bool]):
    """Says what will happen, and waits for a yes or a no."""

    CSS = """
    Question { align: center middle; }
    #question { width: 64; max-width: 94%; height: auto; max-height: 90%; padding: 1 2; border: round $accent;
                background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape,q", "answer(False)", "No"),
    ]

    def __init__(self, job: Job, verb: str) -> None:
        super().__init__()
        self._job, self._verb = job, verb

    def compose(self) -> ComposeResult:
        job, verb = self._job, self._verb
        text = Text.assemble((f"{verb.capitalize()} {label_of(job)}?", "bold"))
        text.append(f"\n{plain(job['state'])} at {rows_of(job)}", "dim")
        text.append(f"\n\n{WHAT_HAPPENS[verb]}")
        if verb == "cancel" and job["kind"] == CreateContributions.name:
            text.append(" The contributions made so far are removed.")
        if verb == "retry":
            text.append(f"\n{_short(job['error'])}", "red")
        text.append("\n\n").append("y", "bold").append(f" yes, {verb} it    ").append("n", "bold").append(" no")
        with Vertical(id="question"):
            yield Static(text)

    def action_answer(self, yes: bool) -> None:
        self.dismiss(yes)


def _cell(job: Job, column: Column, width: int) -> Text:
    if column.name == BAR:
        done = width * job["percentage"] // 100
        return Text.assemble(("━" * done, style_of(job["state"])), ("━" * (width - done), "bright_black"))
    text = Text(column.show(job), style=style_of(job["state"]) if column.name == STATE else "")
    text.justify = "right" if column.right else "left"
    text.truncate(width, overflow="ellipsis")
    return text


def _short(error: str) -> str:
    """The screen has room for so much of it; `guthi jobs show` has all."""
    shown = plain(error)
    return shown if len(shown) <= ERROR_CHARACTERS else f"{shown[:ERROR_CHARACTERS]}…"


def _clock(at: str) -> str:
    """`22:44:42` of an RFC 3339 time in UTC."""
    return plain(at)[11:19]
