"""All state maps of the system in one place, and how they are drawn: `python -m jobs.state_maps >docs/states.md`."""

from collections.abc import Mapping
from typing import NamedTuple

from domain import states
from jobs.engine import model


class StateMap(NamedTuple):
    """`table.column` holds the state; `begins` and `arrows` give each its reason."""

    table: str
    column: str
    begins: Mapping[str, str]
    arrows: Mapping[tuple[str, str], str]

    @property
    def states(self) -> list[str]:
        """Each once, in the order in which the map speaks of them."""
        return list(dict.fromkeys([*self.begins, *(state for arrow in self.arrows for state in arrow)]))


STATE_MAPS: Mapping[str, StateMap] = {
    "member": StateMap("members", "status", states.MEMBER_BEGINS, states.MEMBER_TRANSITIONS),
    "cycle": StateMap("contribution_cycles", "cycle_status", states.CYCLE_BEGINS, states.CYCLE_TRANSITIONS),
    "contribution": StateMap(
        "contributions", "contribution_status", states.CONTRIBUTION_BEGINS, states.CONTRIBUTION_TRANSITIONS
    ),
    "job": StateMap(
        "batch_jobs",
        "state",
        {str(state): reason for state, reason in model.BEGINS.items()},
        {(str(current), str(wanted)): reason for (current, wanted), reason in model.TRANSITIONS.items()},
    ),
}
"""By the name that `state_transitions` and the errors have for it."""


_NEW = "[*]"  # where Mermaid's diagrams begin


def document() -> str:
    """docs/states.md: a Mermaid diagram and a table of reasons for each map."""
    parts = [
        "# State maps\n\nMade by `python -m jobs.state_maps >docs/states.md` from the maps in the code, which the API\n"
        "and the database enforce: any other change is 409 `INVALID_STATUS_TRANSITION`. A test keeps this page true.\n"
    ]
    for name, state_map in STATE_MAPS.items():
        arrows = [(_NEW, state, reason) for state, reason in state_map.begins.items()]
        arrows += [(*arrow, reason) for arrow, reason in state_map.arrows.items()]
        drawn = "\n".join(f"    {current} --> {wanted}" for current, wanted, _ in arrows)
        reasons = "\n".join(f"| {current} | {wanted} | {reason} |" for current, wanted, reason in arrows)
        parts.append(
            f"\n## {name.capitalize()} (`{state_map.table}.{state_map.column}`)\n\n"
            f"```mermaid\nstateDiagram-v2\n{drawn}\n```\n\n| from | to | because |\n|---|---|---|\n{reasons}\n"
        )
    return "".join(parts)


if __name__ == "__main__":
    print(document(), end="")
