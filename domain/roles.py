"""Who may do what: the one table that the API's guards, the docs and the tests' matrix are made from."""

import enum
from collections.abc import Mapping


class Permission(enum.StrEnum):
    """The value is the sentence that the docs show."""

    VIEW = "see tiers, agents, members, cycles, contributions, jobs, maintenance and workers"
    MANAGE_TIERS = "make and change tiers and agents"
    MANAGE_MEMBERS = "bring members in and change them"
    START_CYCLES = "start a contribution cycle"
    STEER_JOBS = "pause, resume, cancel and retry jobs"
    RUN_MAINTENANCE = "run maintenance by hand"
    REGISTER_MEMBERS = "register an applicant"
    REVIEW_MEMBERS = "look into an application"
    DECIDE_MEMBERS = "approve or reject an application"
    READ_EVENTS = "read the feed of all changes"
    READ_AUDIT = "read who changed what"
    MANAGE_USERS = "see, make and change users and their keys"


class Role(enum.StrEnum):
    ADMIN = "admin"
    OPERATOR = "operator"
    APPROVER = "approver"
    ASSESSOR = "assessor"
    AGENT = "agent"
    VIEWER = "viewer"


MEANING: Mapping[Role, str] = {
    Role.ADMIN: "runs the society's account; there is always one",
    Role.OPERATOR: "does the daily work",
    Role.APPROVER: "says yes or no to what others prepared",
    Role.ASSESSOR: "looks into what is claimed",
    Role.AGENT: "collects from members",
    Role.VIEWER: "only looks",
}

PERMISSIONS: Mapping[str, frozenset[Permission]] = {
    Role.ADMIN: frozenset(Permission),
    Role.OPERATOR: frozenset(Permission) - {Permission.MANAGE_USERS, Permission.READ_AUDIT},
    Role.APPROVER: frozenset({Permission.VIEW, Permission.DECIDE_MEMBERS}),
    Role.ASSESSOR: frozenset({Permission.VIEW, Permission.REVIEW_MEMBERS}),
    Role.AGENT: frozenset({Permission.VIEW, Permission.REGISTER_MEMBERS}),
    Role.VIEWER: frozenset({Permission.VIEW}),
}
