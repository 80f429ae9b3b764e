"""How fast a job went: from its shards' samples to one line for people."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

MOST_POINTS = 200
SHORTEST_GAP = timedelta(seconds=0.5)


@dataclass(frozen=True, slots=True)
class RatePoint:
    """`processed` keys stood at `at`; the rate is the mean since the point before, the first one's since the start."""

    at: datetime
    processed: int
    rows_per_second: float


def rate_points(samples: Iterable[Mapping[str, Any]], started_at: datetime | None) -> list[RatePoint]:
    """Samples of all shards in order of time become at most 200 points, evenly apart, the last sample among them.

    Points lie no closer than the samples of one shard: between two shards' samples the rate would jump.
    """
    sums: list[tuple[datetime, int]] = []
    shards: dict[int, int] = {}
    for sample in samples:
        shards[sample["shard_no"]] = sample["processed"]
        sums.append((sample["at"], sum(shards.values())))
    if not sums:
        return []
    since = min(started_at or sums[0][0], sums[0][0])
    gap = max(SHORTEST_GAP, (sums[-1][0] - since) / MOST_POINTS)
    chosen = [sums[-1]]  # backwards, as the last one must be among them
    for at, processed in reversed(sums):
        if chosen[-1][0] - at >= gap and at - since >= gap:
            chosen.append((at, processed))
    points, before = [], (since, 0)
    for at, processed in reversed(chosen):
        seconds = max((at - before[0]).total_seconds(), 0.001)
        points.append(RatePoint(at, processed, round((processed - before[1]) / seconds, 1)))
        before = at, processed
    return points
