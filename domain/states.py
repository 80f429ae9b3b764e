"""The society's state maps: where a row begins, and every arrow that exists, each with its reason.

The database refuses what is not here (`state_transitions` and its triggers); docs/states.md draws them.
"""

from collections.abc import Mapping

from core.errors import InvalidStatusTransitionError

Arrows = Mapping[tuple[str, str], str]

MEMBER_BEGINS: Mapping[str, str] = {
    "Pending": "applied, and was registered",
    "Active": "brought in by an import",
    "Inactive": "brought in by an import",
    "Deceased": "brought in by an import",
}
MEMBER_TRANSITIONS: Arrows = {
    ("Pending", "UnderReview"): "an officer looks into the application",
    ("Pending", "Rejected"): "withdrawn, or not eligible at first sight; the reason is kept",
    ("UnderReview", "Approved"): "taken in: the member number is given",
    ("UnderReview", "Rejected"): "not taken in, or died before; the reason is kept",
    ("Approved", "Active"): "the entry is complete: owes from now on",
    ("Approved", "Inactive"): "withdrew after all; the number stays theirs",
    ("Approved", "Deceased"): "died before the entry was complete",
    ("Active", "Inactive"): "leaves the society, or rests: owes nothing from now on",
    ("Active", "Suspended"): "held back by the society, such as for arrears; the reason is kept",
    ("Active", "Deceased"): "died: a cycle may be started",
    ("Inactive", "Active"): "comes back: owes again from now on",
    ("Inactive", "Deceased"): "died while not active",
    ("Suspended", "Active"): "the cause is mended: owes again from now on",
    ("Suspended", "Inactive"): "leaves instead of coming back",
    ("Suspended", "Deceased"): "died while suspended",
}

CYCLE_BEGINS: Mapping[str, str] = {"Initializing": "an officer started it"}
CYCLE_TRANSITIONS: Arrows = {
    ("Initializing", "Active"): "every contribution is made and counted",
    ("Initializing", "Failed"): "the job failed; the rows made so far stay hidden",
    ("Initializing", "Cancelled"): "an operator cancelled the job",
    ("Failed", "Initializing"): "an operator retries the job from its cursors",
    ("Failed", "Cancelled"): "an operator gives the failed job up; its rows are removed",
    ("Active", "Completed"): "every contribution is paid or given up",
}

CONTRIBUTION_BEGINS: Mapping[str, str] = {"Pending": "the cycle's job made it"}
CONTRIBUTION_TRANSITIONS: Arrows = {
    ("Pending", "Paid"): "the member paid",
    ("Pending", "Failed"): "given up as uncollectable",
    ("Failed", "Paid"): "paid after all",
    ("Paid", "Pending"): "the payment was taken back: it bounced, or was another member's",
}


def check_arrow(thing: str, arrows: Arrows, current: str, wanted: str) -> None:
    """Raises `InvalidStatusTransitionError` when the map has no such arrow."""
    if (current, wanted) not in arrows:
        raise InvalidStatusTransitionError(thing, current, wanted)
