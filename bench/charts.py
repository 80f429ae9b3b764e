"""Draws what `results.json` holds: `python -m bench.charts results.json docs/images`, with the peers' environment.

One message a chart, every axis from zero or said to be logarithmic; a chart without its data is left as it was.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot, ticker

OURS, OTHERS, MUTED, INK = "#0b6e4f", "#9aa5b1", "#cbd2d9", "#1f2933"
SHORT = {
    "this system": "Guthi",
    "one INSERT … SELECT": "one INSERT … SELECT",
    "the same, ON CONFLICT DO NOTHING": "… ON CONFLICT DO NOTHING",
    "the same, stored id, unique (cycle, member)": "… into the usual table",
    "the floor: a heap without any index, two sessions": "floor: a heap, no index",
    "Oban for Python, one looping job": "Oban for Python",
    "procrastinate, one looping task": "procrastinate",
    "DBOS, a workflow of batches": "DBOS",
    "arq, a job a chunk": "arq, a job a chunk",
    "BullMQ + node-postgres, OFFSET": "BullMQ, OFFSET",
}


def main(results: Path, images: Path) -> None:
    parts: dict[str, Any] = json.loads(results.read_text())
    images.mkdir(parents=True, exist_ok=True)
    pyplot.rcParams.update({"font.size": 11, "axes.edgecolor": MUTED, "text.color": INK, "axes.labelcolor": INK})
    for size in ("5000", "1000000"):
        if part := parts.get(f"create-{size}"):
            _ways(part["data"], images / f"create-{size}.png")
    if part := parts.get("growth"):
        _filled(part["data"], images / "growth.png")
        _batches(part["data"], images / "batches.png")
    if part := parts.get("floor"):
        _cpu(part["data"], images / "processor.png")
    if part := parts.get("crash"):
        _recovery(part["data"], images / "recovery.png")


def _ways(data: Mapping[str, Any], path: Path) -> None:
    ways = sorted(data["ways"].items(), key=lambda way: median(run["seconds"] for run in way[1]))
    times = [median(run["seconds"] for run in runs) for _, runs in ways]
    ours = next(seconds for (name, _), seconds in zip(ways, times, strict=True) if name == "this system")
    names = [SHORT.get(name, name) + (" *" if runs[0].get("extrapolated") else "") for name, runs in ways]
    notes = [f"{_seconds(seconds)}   {seconds / ours:.1f} x" for seconds in times]
    title = f"{data['members']:,} contributions: seconds, and times as long as Guthi"
    star = any(name.endswith("*") for name in names)
    is_wide = times[-1] > 30 * times[0]
    below = f"{'logarithmic' if is_wide else 'linear'} scale{'; * extrapolated' if star else ''}"
    _bars(names, times, notes, title, below, path, "Guthi", logarithmic=is_wide)


def _recovery(data: Mapping[str, Any], path: Path) -> None:
    seen = [(SHORT.get(name, name), after) for name, after in data["seen"].items() if isinstance(after, dict)]
    seen = [(name, after) for name, after in seen if after["stood"]]
    waits = [after["by_itself"] or 0 for _, after in seen]
    notes = [_aftermath(after) for _, after in seen]
    title = "SIGKILL of the worker: seconds until another goes on, nothing restarted"
    _bars([name for name, _ in seen], waits, notes, title, "linear scale", path, "Guthi", most=15)


def _aftermath(after: Mapping[str, Any]) -> str:
    if after["by_itself"]:
        return f"{after['by_itself']:.1f} s{'' if after['is_whole'] else '; not whole 15 s later'}"
    restarted = f"{after['after_restart']:.1f} s after a restart" if after["after_restart"] else "nor after a restart"
    return f"not within 15 s; {restarted}"


def _bars(
    names: list[str],
    values: list[float],
    notes: list[str],
    title: str,
    below: str,
    path: Path,
    ours: str,
    *,
    logarithmic: bool = False,
    most: float | None = None,
) -> None:
    figure, axes = pyplot.subplots(figsize=(9, 0.46 * len(names) + 1.3), layout="constrained")
    places = range(len(names))
    colours = [OURS if name == ours else MUTED if name.startswith("floor") else OTHERS for name in names]
    if logarithmic:  # a bar's length would say nothing there
        axes.set_xscale("log")
        axes.hlines(places, *_reach(values), color="#eef1f4", zorder=0)
        axes.scatter(values, places, color=colours, s=90)
    else:
        axes.barh(places, values, color=colours, height=0.68)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    for place, value, note in zip(places, values, notes, strict=True):
        axes.annotate(
            note,
            (value, place),
            xytext=(10 if logarithmic else 6, 0),
            textcoords="offset points",
            va="center",
            fontsize=10,
        )
    axes.set_xlim(*_reach(values) if logarithmic else (0, (most or max(values)) * 1.25))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(f"seconds, {below}")
    _finish(figure, axes, title, path)


def _reach(values: list[float]) -> tuple[float, float]:
    """The ends of a logarithmic axis: with room for the note beside the last."""
    return min(values) / 1.6, max(values) * 8


def _filled(data: Mapping[str, Any], path: Path) -> None:
    rows = [row / 1e6 for row, _, _ in data["filled"]]
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    most = max(max(ours, plain) for _, ours, plain in data["filled"])
    for which, name, colour in ((1, "Guthi", OURS), (2, "one INSERT … SELECT", OTHERS)):
        times = [row[which] for row in data["filled"]]
        axes.plot(rows, times, marker="o", color=colour)
        axes.annotate(name, (rows[-1], times[-1]), xytext=(8, 0), textcoords="offset points", va="center", color=INK)
    axes.set_ylim(0, most * 1.2)
    axes.set_xlim(0, rows[-1] * 1.4)
    axes.set_xticks(rows)
    axes.set_xlabel("million rows in the table before")
    axes.set_ylabel("seconds")
    _finish(figure, axes, f"{data['members']:,} contributions more, by what the table holds", path)


def _batches(data: Mapping[str, Any], path: Path) -> None:
    swept = {int(rows): median(times) for rows, times in data["batches"].items()}
    by_time, members = swept.pop(0), data["members"] // 4
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    rates = [members / seconds / 1e3 for seconds in swept.values()]
    axes.plot(list(swept), rates, marker="o", color=OTHERS)
    axes.axhline(members / by_time / 1e3, color=OURS)
    place = (min(swept), members / by_time / 1e3)
    axes.annotate("sized by time: the default", place, xytext=(0, 6), textcoords="offset points", color=OURS)
    axes.set_xscale("log")
    axes.set_xticks(list(swept), [f"{rows:,}" for rows in swept])
    axes.minorticks_off()
    axes.set_ylim(0, max(*rates, members / by_time / 1e3) * 1.2)
    axes.set_xlabel("rows a batch, logarithmic")
    axes.set_ylabel("thousand rows a second")
    _finish(figure, axes, "Small batches cost speed; time finds the size by itself", path)


def _cpu(data: Mapping[str, Any], path: Path) -> None:
    names = list(data["cpu"])
    values = [1e6 * value for value in data["cpu"].values()]
    notes = [f"{value:.2f} us, {100 * value / sum(values):.0f} %" for value in values]
    figure, axes = pyplot.subplots(figsize=(9, 2.4), layout="constrained")
    axes.barh(range(len(names)), values, color=[OURS, OTHERS, MUTED], height=0.68)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    for place, (value, note) in enumerate(zip(values, notes, strict=True)):
        axes.annotate(note, (value, place), xytext=(6, 0), textcoords="offset points", va="center", fontsize=10)
    axes.set_xlim(0, max(values) * 1.25)
    axes.set_xlabel("microseconds of processor time a row")
    _finish(figure, axes, "Where a million rows' processor time goes", path)


def _finish(figure: Any, axes: Any, title: str, path: Path) -> None:
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, length=0)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _seconds(seconds: float) -> str:
    return f"{1e3 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
