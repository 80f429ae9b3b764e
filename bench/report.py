"""What a measurement hands back: tables, figures with goals, and the numbers that the charts are drawn from."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One thing that has a goal: what was to be reached, what was seen, and the numbers behind it."""

    what: str
    goal: str
    seen: str
    reached: bool
    behind: str = ""


@dataclass(frozen=True)
class Table:
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Part:
    """What one name measured. `data` is JSON, for the charts."""

    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    data: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def at_most(what: str, value: float, goal: float, unit: str, behind: str = "") -> Figure:
    return Figure(what, f"≤ {goal:g}{unit}", f"{value:.3g}{unit}", value <= goal, behind)


def at_least(what: str, value: float, goal: float, unit: str, behind: str = "") -> Figure:
    return Figure(what, f"≥ {goal:g}{unit}", f"{value:.3g}{unit}", value >= goal, behind)


def spread(values: Sequence[float], unit: str, scale: float = 1) -> str:
    """The median with all that it comes from: the range and how many."""
    low, middle, high = (scale * f(values) for f in (min, statistics.median, max))
    return f"median {middle:.3g} {unit} ({low:.3g}-{high:.3g}, {len(values)} tries)"


def in_seconds(seconds: float) -> str:
    return f"{1e3 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"


MARK = "<!-- scripts/bench writes what follows. -->\n"


def write_below(page: Path, text: str) -> None:
    """Put `text` where the page has what was printed before; what people wrote above its mark stays."""
    above, mark, _ = page.read_text().partition(MARK)
    if not mark:
        raise ValueError(f"{page} has no line {MARK.strip()}")
    page.write_text(f"{above}{mark}\n{text}")


def markdown(parts: Mapping[str, Mapping[str, Any]]) -> str:
    """All parts as they lie in `results.json`: the figures with goals first, then each part's tables."""
    figures = [figure for part in parts.values() for figure in part["figures"]]
    lines = ["## What was printed", ""]
    if figures:
        rows = [[f["what"], f["goal"], f["seen"], "yes" if f["reached"] else "**no**", f["behind"]] for f in figures]
        lines += ["### Goals", "", *_grid(["figure", "goal", "seen", "reached", "behind it"], rows)]
    for name, part in parts.items():
        lines += [f"### {name}", "", f"{part['machine']}", ""]
        for table in part["tables"]:
            lines += [f"#### {table['title']}", "", *_grid(table["columns"], table["rows"])]
            lines += [table["note"], ""] if table["note"] else []
    return "\n".join(lines)


def _grid(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [columns, ["---"] * len(columns), *rows]
    return [f"| {' | '.join(line)} |" for line in lines] + [""]
