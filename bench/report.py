"""A figure: what was to be reached, what was seen, and the numbers behind it. Printed as Markdown."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One line of the table. `reached` None: a number that is told and has no goal."""

    what: str
    goal: str
    seen: str
    reached: bool | None
    behind: str = ""


def at_most(what: str, value: float, goal: float, unit: str, behind: str = "") -> Figure:
    return Figure(what, f"≤ {goal:g}{unit}", f"{value:.3g}{unit}", value <= goal, behind)


def at_least(what: str, value: float, goal: float, unit: str, behind: str = "") -> Figure:
    return Figure(what, f"≥ {goal:g}{unit}", f"{value:.3g}{unit}", value >= goal, behind)


def told(what: str, seen: str, behind: str = "") -> Figure:
    return Figure(what, "", seen, None, behind)


def spread(values: Sequence[float], unit: str, scale: float = 1) -> str:
    """The median with all that it comes from: the range and how many."""
    low, middle, high = (scale * f(values) for f in (min, statistics.median, max))
    return f"median {middle:.3g} {unit} ({low:.3g}-{high:.3g}, {len(values)} tries)"


def markdown(figures: Iterable[Figure]) -> str:
    verdict = {True: "yes", False: "**no**", None: ""}
    lines = ["| figure | goal | seen | reached | behind it |", "|---|---|---|---|---|"]
    lines += [f"| {f.what} | {f.goal} | {f.seen} | {verdict[f.reached]} | {f.behind} |" for f in figures]
    return "\n".join(lines) + "\n"
