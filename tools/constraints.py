"""Write constraints.txt: the version of every distribution the tests ran with.

    python -m tools.constraints

The list is the closure of `coxswain` with every extra over what is installed here, so tools that
happen to share the environment stay out. Local version labels are cut off:
`torch==2.13.0` takes the CPU build where one is offered and the CUDA build elsewhere.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PATH = Path(__file__).parent.parent / "constraints.txt"
_EXTRAS = frozenset({"server", "adapters", "clients", "evals", "dev", "postgresql", "objects"})
_HEADER = "# Every version the tests ran with; written by `make constraints`.\n"


def closure(root: str = "coxswain", extras: frozenset[str] = _EXTRAS) -> dict[str, str]:
    """Public version by name of every installed distribution that `root[extras]` needs."""
    found: dict[str, str] = {}
    visited: set[tuple[str, str]] = set()
    pending = [(canonicalize_name(root), extra) for extra in ("", *sorted(extras))]
    while pending:
        name, extra = pending.pop()
        if (name, extra) in visited:
            continue
        visited.add((name, extra))
        distribution = metadata.distribution(name)
        found[name] = Version(distribution.version).public
        for text in distribution.requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                wanted = canonicalize_name(requirement.name)
                pending += [(wanted, inner) for inner in ("", *sorted(requirement.extras))]
    found.pop(canonicalize_name(root))
    return found


def render(pins: dict[str, str]) -> str:
    """The text of constraints.txt."""
    return _HEADER + "".join(f"{name}=={pins[name]}\n" for name in sorted(pins))


if __name__ == "__main__":
    PATH.write_text(render(closure()))
