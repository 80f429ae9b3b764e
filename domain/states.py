"""The society's state maps: every arrow that exists, with its reason."""

from collections.abc import Mapping

from core.errors import InvalidStatusTransitionError

CYCLE_TRANSITIONS: Mapping[tuple[str, str], str] = {
    ("Initializing", "Active"): "every contribution is made and counted",
    ("Initializing", "Failed"): "the job failed; the rows made so far stay hidden",
    ("Initializing", "Cancelled"): "an operator cancelled the job",
    ("Failed", "Initializing"): "an operator retries the job from its cursors",
    ("Failed", "Cancelled"): "an operator gives the failed job up; its rows are removed",
    ("Active", "Completed"): "every contribution is paid or given up",
}

MEMBER_TRANSITIONS: Mapping[tuple[str, str], str] = {
    ("Active", "Inactive"): "leaves the society, or rests: owes nothing from now on",
    ("Inactive", "Active"): "comes back: owes again from now on",
    ("Active", "Deceased"): "died: a cycle may be started",
    ("Inactive", "Deceased"): "died while not active",
}


def check_arrow(thing: str, arrows: Mapping[tuple[str, str], str], current: str, wanted: str) -> None:
    """Raises `InvalidStatusTransitionError` when the map has no such arrow."""
    if (current, wanted) not in arrows:
        raise InvalidStatusTransitionError(thing, current, wanted)
