"""What is drawn: a bar whose segments are the shards, and rows a second over a run, as numbers for an SVG."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

WIDTH, HEIGHT = 1_000, 120


GAP = 0.3
"""Between two segments of a bar, in percent of it."""
MOST_WITH_GAPS = 60


@dataclass(frozen=True, slots=True)
class Segment:
    """Percent of the bar: where it begins, how wide it is, how much of it is filled."""

    x: float
    width: float
    fill: float


def segments(job: dict[str, Any]) -> list[Segment]:
    """One for each shard, all as wide; one for the whole while it is not cut yet."""
    shards = job["shards"]
    if not shards:
        return [Segment(0, 100, job["percentage"])]
    share = 100 / len(shards)
    width = share - (GAP if 1 < len(shards) <= MOST_WITH_GAPS else 0)
    return [
        Segment(round(n * share, 3), round(width, 3), round(width * shard_percent(job, shard) / 100, 3))
        for n, shard in enumerate(shards)
    ]


def shard_percent(job: dict[str, Any], shard: dict[str, Any]) -> float:
    """Shards are cut into about the same size; how many keys each has is not counted."""
    if shard["done"] or job["state"] == "Completed":
        return 100
    share = (job["total"] or 0) / len(job["shards"])
    return round(min(100, shard["processed"] / share * 100), 2) if share else 0


@dataclass(frozen=True, slots=True)
class Chart:
    """`line` and `area` are what `<polyline>` and `<polygon>` take."""

    line: str
    area: str
    highest: float
    last: float
    seconds: float


def rate_chart(samples: list[dict[str, Any]]) -> Chart | None:
    """None while there are too few for a line."""
    if len(samples) < 2:
        return None
    times = [datetime.fromisoformat(sample["at"]).timestamp() for sample in samples]
    rates = [float(sample["rowsPerSecond"]) for sample in samples]
    span, highest = max(times[-1] - times[0], 0.001), max(*rates, 1.0)
    points = [
        f"{(at - times[0]) / span * WIDTH:.1f},{HEIGHT - rate / highest * HEIGHT:.1f}"
        for at, rate in zip(times, rates, strict=True)
    ]
    line = " ".join(points)
    return Chart(line, f"0,{HEIGHT} {line} {WIDTH},{HEIGHT}", max(rates), rates[-1], span)
