"""How large a run is: whole, `--quick` to see that everything runs, or `--large`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    quick: bool
    large: bool

    def pick(self, whole: int, quick: int) -> int:
        return quick if self.quick else whole
