"""The words of the pages that are no template's: states, kinds, events, advice. Marked by `_`, looked up when shown."""

from collections.abc import Mapping
from math import ceil


def _(text: str) -> str:
    """Marks a text for the catalogues."""
    return text


WORDS: Mapping[str, str] = {
    "Initializing": _("Initializing"),
    "Active": _("Active"),
    "Completed": _("Completed"),
    "Failed": _("Failed"),
    "Cancelled": _("Cancelled"),
    "Paused": _("Paused"),
    "Queued": _("Queued"),
    "Processing": _("Processing"),
    "Pending": _("Pending"),
    "Paid": _("Paid"),
    "create_contributions": _("Create contributions"),
    "remove_contributions": _("Remove contributions"),
    "notify_agents_new_cycle": _("Notify agents"),
    "import_members": _("Import members"),
    "pause": _("Pause"),
    "resume": _("Resume"),
    "cancel": _("Cancel"),
    "retry": _("Retry"),
    "ContributionCycleInitiated": _("Cycle started"),
    "ContributionCycleActivated": _("Cycle active: every contribution is made and counted"),
    "ContributionCycleFailed": _("Cycle failed"),
    "ContributionCycleRetried": _("Taken up again"),
    "ContributionCycleCancelled": _("Cycle cancelled"),
    "ContributionCycleCompleted": _("Cycle completed"),
    "inline": _("at once, in the request itself"),
    "queued": _("by the workers, in the background"),
    "auto": _("as its size asks for"),
    "admin": _("admin"),
    "operator": _("operator"),
    "approver": _("approver"),
    "assessor": _("assessor"),
    "agent": _("agent"),
    "viewer": _("viewer"),
    "info": _("info"),
    "warning": _("warning"),
    "error": _("error"),
    "debug": _("debug"),
    "ok": _("answers"),
    "away": _("away"),
}
"""What the API calls things, as people read them. What is not here is shown as the API calls it."""

KINDS = ("create_contributions", "remove_contributions", "notify_agents_new_cycle", "import_members")
JOB_STATES = ("Queued", "Processing", "Paused", "Completed", "Failed", "Cancelled")
CYCLE_STATES = ("Initializing", "Active", "Completed", "Failed", "Cancelled")
ENDED = ("Completed", "Failed", "Cancelled")
VERBS = ("pause", "resume", "retry", "cancel")
ROLES = ("admin", "operator", "approver", "assessor", "agent", "viewer")

CONSEQUENCE: Mapping[str, str] = {
    "pause": _("When this has answered, no further row appears. What is made stays; Resume goes on from there."),
    "resume": _("It goes on from where it stood. Nothing is made twice."),
    "cancel": _(
        "It ends for good. When this has answered, no further row appears; what a cancelled cycle has made is removed."
    ),
    "retry": _(
        "It goes on from where it failed, and nothing is made twice. If the cause is still there, it will fail again."
    ),
}
DONE: Mapping[str, str] = {
    "pause": _("Paused: no further row appears until it is resumed."),
    "resume": _("Resumed: it goes on from where it stood."),
    "cancel": _("Cancelled: no further row appears."),
    "retry": _("Taken up again from where it failed."),
    "started": _("The cycle is started. You may leave this page: we will tell you when it is ready."),
    "run": _("Run: the result is in the list."),
    "user-added": _("The user is added. Issue a key, so that they can sign in."),
    "user-changed": _("Changed. It holds from their next request on."),
    "key-revoked": _("Revoked: the key opens nothing any more."),
    "signed-out": _("You are signed out."),
}
"""What was just done, told after the answer to a form."""

UNKNOWN_TIME = _("estimating the time left…")
LEFT_SHORT: Mapping[str, str] = {
    "done": _("done"),
    "seconds": _("%(n)s s left"),
    "minutes": _("%(n)s min left"),
    "hours": _("%(n)s h left"),
}
LEFT_LONG: Mapping[str, str] = {
    "done": _("done"),
    "seconds": _("less than a minute"),
    "minute": _("about 1 more minute"),
    "minutes": _("about %(n)s more minutes"),
    "hours": _("about %(n)s more hours"),
}

TITLES: Mapping[int, str] = {
    400: _("This could not be read"),
    401: _("Please sign in"),
    403: _("You may not do this"),
    404: _("There is nothing here"),
    405: _("This cannot be done here"),
    409: _("It is no longer as you saw it"),
    413: _("This is too large"),
    422: _("This cannot be done as it was asked"),
    429: _("Too many requests"),
    500: _("This is a defect of ours"),
    503: _("The database cannot be reached"),
}
SAFE: Mapping[int, str] = {
    409: _("Nothing was changed by this."),
    429: _("Nothing was changed by this. Running jobs go on."),
    500: _("It was logged. Running jobs go on by themselves."),
    503: _("Nothing is lost: what was committed stands, and jobs go on by themselves once it is back."),
}
NOTHING_CHANGED = _("Nothing was changed.")
NEXT: Mapping[str, str] = {
    "LAST_ADMIN": _("Give another admin a key that does not expire first."),
    "DUPLICATE_RESOURCE": _("Choose another one, or use the one that is there."),
    "CONCURRENT_MODIFICATION": _("Somebody else changed it first: look again, then decide."),
    "INVALID_STATUS_TRANSITION": _("Look at it again: it has moved on meanwhile."),
    "INSUFFICIENT_PERMISSIONS": _("Ask an admin of your society."),
    "RATE_LIMITED": _("Wait a moment, then try again."),
    "DATABASE_ERROR": _("Wait: this page tries again by itself."),
    "MAINTENANCE_RUNNING": _("Wait until it has ended: its result will be in the list."),
    "UNKNOWN_ERROR": _("Try again; if it stays, look for the request's id in the API's log."),
}
NEXT_BY_STATUS: Mapping[int, str] = {
    404: _("Check the address, or go on from the list of cycles."),
    422: _("Go back, mend what it names, and try again."),
    400: _("Go back and try again."),
}


def time_left(seconds: float) -> tuple[str, int]:
    """Which of the forms above, and its number."""
    if seconds <= 0:
        return "done", 0
    if seconds < 60:
        return "seconds", ceil(seconds)
    minutes = round(seconds / 60)
    if minutes < 90:
        return ("minute" if minutes == 1 else "minutes"), minutes
    return "hours", round(seconds / 3_600)


LEFT_SHORT = {**LEFT_SHORT, "minute": LEFT_SHORT["minutes"]}
