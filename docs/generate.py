"""`python -m docs.generate`: writes docs/reference.md from the tables in the code. A test checks that it is fresh."""

import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

from api.app import create_app
from api.context import permission_of
from core.errors import GuthiError, NotFoundError, Thing
from core.settings import Settings
from domain.roles import MEANING, PERMISSIONS, Permission, Role

REFERENCE = Path(__file__).with_name("reference.md")
ENV_EXAMPLE = Path(__file__).parents[1] / ".env.example"

HEAD = """# Reference

Made from the code by `python -m docs.generate`; do not edit it by hand. The calls themselves are at `/docs` of a
running API; [states.md](states.md) has the state maps.
"""


def reference() -> str:
    sections = [
        HEAD,
        "## Roles\n",
        _table(("role", "who"), [(role, MEANING[role]) for role in Role]),
        _table(("may", *Role), _permissions()),
        "A role is read with the key at every request, and so is whether its user is active.\n",
        _table(("permission", "calls"), _calls()),
        "## Error codes\n",
        "Every error is `application/problem+json` with `type, title, status, detail, code, context`.\n",
        _table(("code", "status", "what it says"), error_codes()),
        "## Settings\n",
        "Environment variables, or a `.env` file; with their bounds in `core/settings.py`.\n",
        _table(("variable", "default", "meaning"), _settings()),
    ]
    return "\n".join(sections)


def error_codes() -> list[tuple[str, str, str]]:
    """Code, statuses and meaning of all that the API answers with."""
    found: dict[str, tuple[set[int], str]] = {}
    for kind in _kinds(GuthiError):
        is_branch = bool(kind.__subclasses__()) and "code" not in vars(kind)  # of the tree: raised by nobody
        is_internal = kind is not GuthiError and kind.status == GuthiError.status
        if is_branch or is_internal:
            continue
        meaning = "a defect of ours; it was logged" if kind is GuthiError else inspect.getdoc(kind) or ""
        codes = [f"{thing.upper()}_NOT_FOUND" for thing in get_args(Thing)] if kind is NotFoundError else [kind.code]
        for code in codes:
            said = f"nothing in this society has this {code.split('_')[0].lower()}'s id" if len(codes) > 1 else meaning
            statuses, _ = found.setdefault(code, (set(), said.split("\n")[0]))
            statuses.add(kind.status)
    return [
        (code, ", ".join(str(status) for status in sorted(statuses)), meaning)
        for code, (statuses, meaning) in sorted(found.items(), key=lambda entry: (min(entry[1][0]), entry[0]))
    ]


def _kinds(kind: type[GuthiError]) -> Iterator[type[GuthiError]]:
    yield kind
    for below in kind.__subclasses__():
        if below.__module__ == GuthiError.__module__:
            yield from _kinds(below)


def _permissions() -> list[tuple[str, ...]]:
    return [
        (permission.value, *("yes" if permission in PERMISSIONS[role] else "" for role in Role))
        for permission in Permission
    ]


def _calls() -> list[tuple[str, str]]:
    """Read from the guards of the API's routes."""
    calls: dict[Permission | None, list[str]] = {permission: [] for permission in (*Permission, None)}
    for route in create_app(Settings(_env_file=None, database_url="postgresql://nowhere")).state.routes:
        if route.include_in_schema:
            path = re.sub(r"{(\w+?)_id}", r"{\1Id}", route.path)
            calls[permission_of(route)] += [f"`{method} {path}`" for method in sorted(route.methods)]
    return [
        (permission.value if permission else "open to everybody", "<br>".join(found))
        for permission, found in calls.items()
    ]


def _settings() -> list[tuple[str, str, str]]:
    """With the sentences of `.env.example`, which a test holds to be complete."""
    rows: list[tuple[str, str, str]] = []
    said: list[str] = []
    for line in ENV_EXAMPLE.read_text().splitlines():
        if line.startswith("# "):
            said.append(line[2:])
        elif "=" in line:
            name, _, default = line.partition("=")
            rows.append((f"`{name}`", f"`{default}`" if default else "", " ".join(said)))
            said = []
        else:
            said = []
        if line.startswith("# ---"):
            said = []
    return rows


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [[cell.replace("|", "\\|") for cell in line] for line in (head, ["---"] * len(head), *rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    REFERENCE.write_text(reference())
