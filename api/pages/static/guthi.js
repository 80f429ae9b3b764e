// Live numbers, lost connections, toasts. Everything else works without this file.
// It changes text and widths in place; what changes its shape is fetched anew from the server by htmx.
"use strict";

const said = document.body.dataset;
const language = document.documentElement.lang;
const whole = new Intl.NumberFormat(language === "ne" ? "ne-u-nu-deva" : language, { maximumFractionDigits: 0 });
const relative = new Intl.RelativeTimeFormat(language === "ne" ? "ne-u-nu-deva" : language);
const ENDED = ["Completed", "Failed", "Cancelled"];
const RETRY_MS = 1500, PULSE_MS = 4000, CLOCK_MS = 10000, CHART_MS = 2000, MOST_LOG_LINES = 500;

const fill = (text, values) => text.replace(/%\((\w+)\)s/g, (_, name) => values[name]);
const number = (value) => (value === null || value === undefined ? "–" : whole.format(value));

// --- words for the time left, the same forms as words.py
function timeLeft(seconds) {
  if (seconds <= 0) return ["done", 0];
  if (seconds < 60) return ["seconds", Math.ceil(seconds)];
  const minutes = Math.round(seconds / 60);
  if (minutes < 90) return [minutes === 1 ? "minute" : "minutes", minutes];
  return ["hours", Math.round(seconds / 3600)];
}
function leftShort(seconds) {
  if (seconds === null) return "";
  const [form, n] = timeLeft(seconds), [s, min, h] = said.tLeft.split("|");
  return form === "done" ? "" : fill({ seconds: s, minute: min, minutes: min, hours: h }[form], { n: number(n) });
}
function leftLong(seconds) {
  if (seconds === null) return said.tUnknown;
  const [form, n] = timeLeft(seconds), [s, minute, minutes, h] = said.tLeftLong.split("|");
  return form === "done" ? "" : fill({ seconds: s, minute, minutes, hours: h }[form], { n: number(n) });
}

// --- one job's numbers, wherever it is shown
function put(root, name, text) {
  for (const place of root.querySelectorAll(`[data-v="${name}"]`)) {
    const target = place.querySelector("bdi") || place;
    if (target.textContent !== text) target.textContent = text;
  }
}
function shardPercent(job, shard) {
  if (shard.done || job.state === "Completed") return 100;
  const share = (job.total || 0) / Math.max(1, job.shards.length);
  return share > 0 ? Math.min(100, (shard.processed / share) * 100) : 0;
}
function drawBar(bar, job) {
  bar.setAttribute("aria-valuenow", job.percentage);
  const fills = bar.querySelectorAll(".fill"), tracks = bar.querySelectorAll(".track");
  if (fills.length !== Math.max(1, job.shards.length)) return;
  fills.forEach((rect, i) => {
    const percent = job.shards.length ? shardPercent(job, job.shards[i]) : job.percentage;
    rect.setAttribute("width", `${(parseFloat(tracks[i].getAttribute("width")) * percent) / 100}%`);
  });
}
function show(job) {
  for (const root of document.querySelectorAll(`[data-job="${job.jobId}"]`)) {
    const ended = ENDED.includes(job.state);
    put(root, "processed", number(job.processed));
    put(root, "total", number(job.total));
    put(root, "percent", `${number(job.percentage)} %`);
    put(root, "rate", fill(said.tRate, { n: number(job.rate) }));
    put(root, "left", ended ? "" : leftShort(job.estimatedTimeRemaining));
    put(root, "sum", `${number(job.percentage)}% (${number(job.processed)}/${number(job.total)})`);
    put(root, "left-long", ended || job.state === "Paused" ? "" : leftLong(job.estimatedTimeRemaining));
    for (const bar of root.querySelectorAll("[data-bar]")) drawBar(bar, job);
    for (const shard of job.shards) {
      for (const row of root.querySelectorAll(`[data-shard="${shard.shardNo}"]`)) {
        row.querySelector('[data-v="fill"]').setAttribute("width", `${shardPercent(job, shard)}%`);
        put(row, "rows", number(shard.processed));
        put(row, "holder", shard.leaseHolder || (shard.done ? "✓" : "–"));
        put(row, "attempts", number(shard.attempts));
        put(row, "batch", number(shard.batchRows));
        put(row, "error", shard.error || "–");
      }
    }
    const changed = root.dataset.state !== job.state;
    if (changed || Number(root.dataset.shards) !== job.shards.length) {
      root.dataset.state = job.state;
      root.dataset.shards = job.shards.length;
      refresh(root.closest("[hx-get]"));
    }
  }
}

// --- parts that the server renders anew. Not under the reader's hands: a question that is open waits for its answer.
const waiting = new Set();
function refresh(part) {
  if (!part || !window.htmx) return;
  if (part.querySelector(":popover-open")) waiting.add(part);
  else htmx.trigger(part, "refresh");
}
document.addEventListener("toggle", (event) => {
  if (event.newState === "closed" && waiting.size) {
    const parts = [...waiting];
    waiting.clear();
    parts.forEach(refresh);
  }
}, true);

// --- streams: opened again by us, as a browser gives up for good on an answer that is no stream
class Stream {
  constructor(url, handlers, after) {
    Object.assign(this, { url, handlers, after, source: null, timer: 0, closed: false, isLost: false });
    this.open();
  }
  open() {
    if (this.closed) return;
    const url = this.after ? this.url + (this.url.includes("?") ? "&" : "?") + this.after() : this.url;
    this.source = new EventSource(url);
    this.source.onopen = () => {
      if (this.isLost) { this.isLost = false; regained(); }
    };
    this.source.onerror = () => {
      this.source.close();
      if (this.closed || this.handlers.isDone?.()) return;
      this.isLost = true;
      pulse();
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.open(), RETRY_MS);
    };
    for (const [name, handle] of Object.entries(this.handlers.on)) {
      this.source.addEventListener(name, (event) => handle(JSON.parse(event.data), event.lastEventId));
    }
  }
  close() {
    this.closed = true;
    clearTimeout(this.timer);
    this.source?.close();
  }
}

// --- the page's own stream; a hidden page gives its connection back, as a browser has six of them for all its tabs
let live = null, chartAt = 0;
const ALL = "/api/jobs/stream";
function wantedStream() {
  const part = document.querySelector("#live[data-stream]");
  return part && (part.dataset.ended ? ALL : part.dataset.stream); // one that has ended may be taken up again
}
function openLive() {
  const url = wantedStream();
  if (live?.url === url || !url || document.hidden) return;
  closeLive();
  let ended = false;
  live = new Stream(url, {
    isDone: () => ended,
    on: {
      jobs: ({ items }) => { items.forEach(show); noticeNewJobs(items); },
      job: (job) => {
        ended = ENDED.includes(job.state);
        if (ended) closeLive();
        show(job);
        if (ended || Date.now() - chartAt > CHART_MS) {
          chartAt = Date.now();
          refresh(document.getElementById("rates"));
        }
      },
      log: (entry) => addLogLine(entry),
    },
  }, url === ALL ? null : () => `after=${lastLogLine()}`);
}
function closeLive() {
  live?.close();
  live = null;
}
function noticeNewJobs(items) {
  const part = document.getElementById("live"), kind = part?.dataset.kinds;
  if (kind === undefined) return;
  const isFirst = !new URLSearchParams(location.search).get("after");
  const isNew = (job) => isFirst && !ENDED.includes(job.state) && (!kind || job.kind === kind) && !document.querySelector(`[data-job="${job.jobId}"]`);
  const unseen = items.filter(isNew).map((job) => job.jobId).filter((id) => !asked.has(id));
  unseen.forEach((id) => asked.add(id));
  // One that ended before the stream was open is in none of its events.
  const gone = (row) => !ENDED.includes(row.dataset.state) && !items.some((job) => job.jobId === row.dataset.job);
  if (unseen.length || [...part.querySelectorAll("[data-job]")].some(gone)) refresh(part);
}
const asked = new Set();

function lastLogLine() {
  return document.querySelector("#log > li:last-child")?.dataset.entry || 0;
}
function addLogLine(entry) {
  const list = document.getElementById("log");
  if (!list || list.querySelector(`[data-entry="${entry.entryNo}"]`)) return;
  const box = list.parentElement, atEnd = box.scrollTop + box.clientHeight >= box.scrollHeight - 8;
  const line = document.createElement("li");
  line.className = `is-${entry.level}`;
  line.dataset.entry = entry.entryNo;
  const add = (tag, text, className) => {
    const part = document.createElement(tag);
    part.textContent = text;
    if (className) part.className = className;
    line.append(part, tag === "span" ? "" : " ");
    return part;
  };
  const time = add("time", entry.at.slice(11, 19));
  time.dateTime = entry.at;
  add("b", entry.event);
  for (const [name, value] of Object.entries(entry.fields)) {
    add("span", `${name}=`, "muted");
    add("bdi", typeof value === "string" ? value : JSON.stringify(value));
  }
  list.append(line);
  document.querySelector("[data-empty-log]")?.remove();
  while (list.children.length > MOST_LOG_LINES) list.firstChild.remove();
  if (atEnd) box.scrollTop = box.scrollHeight;
}

// --- is everything there? Asked for while the page is seen; what is wrong is said at the top, and goes by itself
const trouble = document.getElementById("trouble");
let troubled = "", pulsing = false;
function say(text, link) {
  if (troubled === text) return;
  const cleared = troubled && !text;
  troubled = text;
  trouble.hidden = !text;
  trouble.textContent = text;
  if (link) {
    const back = document.createElement("a");
    back.href = link;
    back.textContent = said.tSignIn;
    trouble.append(" ", back);
  }
  if (cleared) regained();
}
async function pulse() {
  if (pulsing || document.hidden || !said.user) return;
  pulsing = true;
  try {
    const ready = await fetch("/readyz", { cache: "no-store" });
    const { postgres, redis } = await ready.json();
    if (postgres !== "ok") return say(said.tPostgres);
    const me = await fetch("/api/me", { cache: "no-store" });
    if (me.status === 401 || me.status === 403) {
      const back = encodeURIComponent(location.pathname + location.search);
      return say(said.tOver, `/sign-in?why=SESSION_EXPIRED&back=${back}`);
    }
    say(redis === "ok" ? "" : said.tRedis);
  } catch {
    say(said.tAway);
  } finally {
    pulsing = false;
  }
}
function regained() {
  if (!document.hidden) refresh(document.getElementById("live"));
}

// --- toasts: what the reader started has ended. Read by position, which one tab keeps for all of them
const SEEN_AFTER_MS = 5000; // who leaves a page sooner may not have read it: the next one tells it again
const positionKey = `guthi.position.${said.user}`;
const position = () => Number(localStorage.getItem(positionKey) ?? said.noticePosition);
const told = new Set();
function seen(notice) {
  localStorage.setItem(positionKey, Math.max(position(), notice.position));
}
function tell(notice) {
  if (notice.position <= position() || !toast(notice)) return;
  localStorage.setItem("guthi.notice", JSON.stringify({ user: said.user, notice })); // for the other tabs
  if (window.Notification && Notification.permission === "granted") {
    const { title, text } = inWords(notice);
    new Notification(title, { body: text, tag: `guthi-${notice.position}`, icon: "/static/icon.svg" }).onclick = () => {
      window.focus();
      location.href = `/cycles/${notice.cycleId}`;
    };
  }
}
function inWords(notice) {
  const title = { cycle_ready: said.tReady, cycle_failed: said.tFailed, cycle_cancelled: said.tCancelled }[notice.kind];
  const text = notice.kind === "cycle_ready" ? fill(said.tMembers, { n: number(notice.totalMembers) }) : notice.reason || "";
  return { title: fill(title, { code: notice.cycleCode }), text };
}
function toast(notice) { // false: this page shows it already
  if (told.has(notice.position)) return false;
  told.add(notice.position);
  setTimeout(seen, SEEN_AFTER_MS, notice);
  const { title, text } = inWords(notice), box = document.createElement("div"), words = document.createElement("p");
  box.className = notice.kind === "cycle_ready" ? "toast" : "toast is-bad";
  const link = document.createElement("a"), detail = document.createElement("bdi"), close = document.createElement("button");
  link.href = `/cycles/${notice.cycleId}`;
  link.textContent = title;
  detail.textContent = text.slice(0, 200);
  words.append(link, document.createElement("br"), detail);
  close.className = "button small";
  close.type = "button";
  close.textContent = said.tClose;
  close.addEventListener("click", () => {
    seen(notice);
    box.remove();
  });
  box.append(words, close);
  const toasts = document.getElementById("toasts");
  toasts.append(box);
  while (toasts.children.length > 4) toasts.firstChild.remove();
  return true;
}
function listenForNotices() {
  if (!said.user) return;
  if (localStorage.getItem(positionKey) === null) localStorage.setItem(positionKey, said.noticePosition);
  window.addEventListener("storage", (event) => {
    if (event.key !== "guthi.notice" || !event.newValue) return;
    const { user, notice } = JSON.parse(event.newValue);
    if (user === said.user) toast(notice);
  });
  const open = () => new Stream("/api/notices/stream", { on: { notice: tell } }, () => `after=${position()}`);
  // One tab of a browser listens and tells the others; without locks (plain HTTP) each does.
  if (navigator.locks) navigator.locks.request(`guthi.notices.${said.user}`, () => new Promise(() => { open(); }));
  else open();
}
function offerNotifications() {
  const button = document.getElementById("allow-notices");
  if (!button || !window.Notification || Notification.permission !== "default") return;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await Notification.requestPermission();
    button.hidden = true;
  });
}

// --- "2 minutes ago" grows old
function tickTimes() {
  const units = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
  for (const time of document.querySelectorAll("main time[title]")) {
    if (time.closest(".log, .timeline")) continue;
    const seconds = (new Date(time.dateTime) - Date.now()) / 1000;
    const [unit, length] = units.find(([, size]) => Math.abs(seconds) >= size) || ["second", 1];
    if (Math.abs(seconds) < 30 * 86400) time.textContent = relative.format(Math.round(seconds / length), unit);
  }
}

document.body.addEventListener("htmx:responseError", (event) => {
  if (event.detail.xhr.status !== 401) pulse();
});
document.body.addEventListener("htmx:sendError", pulse);
document.body.addEventListener("htmx:beforeSwap", ({ detail }) => {
  if (!detail.target.querySelector(":popover-open")) return;
  detail.shouldSwap = false; // it was asked for before the question was opened
  waiting.add(detail.target);
});
document.body.addEventListener("htmx:afterSwap", ({ detail }) => {
  if (detail.target.id !== "live") return;
  // What is only there at the end, and was not when the page was made.
  if (document.getElementById("live").dataset.ended) document.querySelectorAll("[data-awaits-end]").forEach(refresh);
  openLive();
});
document.body.addEventListener("htmx:configRequest", (event) => {
  event.detail.headers["HX-Current-Path"] = location.pathname + location.search;
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return closeLive();
  refresh(document.getElementById("live"));
  openLive();
  pulse();
});
window.addEventListener("pagehide", closeLive);

if (document.querySelector("[data-again]")) location.replace(location.href);
const every = Number(document.getElementById("live")?.dataset.every);
if (every) setInterval(() => document.hidden || troubled || refresh(document.getElementById("live")), every * 1000);
setInterval(pulse, PULSE_MS);
setInterval(tickTimes, CLOCK_MS);
openLive();
listenForNotices();
offerNotifications();
const log = document.getElementById("log")?.parentElement;
if (log) log.scrollTop = log.scrollHeight;
if (document.querySelector("[data-retry]")) {
  setInterval(async () => {
    const ready = await fetch("/readyz", { cache: "no-store" }).catch(() => null);
    if (ready?.ok) location.reload();
  }, RETRY_MS);
}
