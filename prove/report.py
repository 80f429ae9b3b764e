"""What a part of the proof is asked for, and what it answers."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Options:
    """`long`: everything, however long it takes; else a sample drawn with `seed`, in about a minute a part."""

    long: bool = False
    seed: int = 0
    minutes: float | None = None
    only: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """`report` is Markdown. `failures` has a line for each thing that was not proven: empty, the part holds."""

    report: str
    failures: Sequence[str] = field(default_factory=tuple)


Part = Callable[[Options], Awaitable[Outcome]]


def table(heads: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """Markdown; every column but the first is a figure, and stands to the right."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
