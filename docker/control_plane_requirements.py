"""Prints what the control plane's image installs: every requirement of ours but those that bring torch.

``trunkline`` requires ``trunkline-agent``, and that requires torch, which the control plane never loads (an
import contract says so). So the image installs this list, and then the two distributions alone.
Needs nothing but Python. Arguments: names of extras, by default ``server``.
"""

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TRAINING = frozenset({"peft", "safetensors", "tokenizers", "torch", "transformers"})
"""What only those need who compute: agents and workers."""
OURS = frozenset({"trunkline", "trunkline-agent"})


def read_requirements(extras: list[str]) -> list[str]:
    """Return the requirements of the control plane, as ``pyproject.toml`` states them.

    Raises:
        SystemExit: There is no such extra.
    """
    platform, agent = (_project(folder) for folder in (ROOT, ROOT / "client_agent"))
    known = platform["optional-dependencies"]
    if unknown := set(extras) - set(known):
        sys.exit(
            f"no extra {', '.join(sorted(unknown))} in pyproject.toml; there are {', '.join(sorted(known))}"
        )
    stated = [*agent["dependencies"], *(line for extra in extras for line in known[extra])]
    return sorted({line for line in stated if name_of(line) not in TRAINING | OURS})


def name_of(requirement: str) -> str:
    """Return a requirement's name in its one form (PEP 503)."""
    [name] = re.findall(r"^[A-Za-z0-9._-]+", requirement)
    return re.sub(r"[-_.]+", "-", name).lower()


def _project(folder: Path) -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return project


if __name__ == "__main__":
    print("\n".join(read_requirements(sys.argv[1:] or ["server"])))
