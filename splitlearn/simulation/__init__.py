"""The whole federation in one process over memory links, and the centralised reference beside it.

The names are loaded when first used: ``trunkline --help`` need not wait for torch, and the reference, a
program of its own (:mod:`splitlearn.simulation.centralised`), is not loaded twice.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from splitlearn.simulation.federation import Federation, Lines, simulate
    from splitlearn.simulation.results import SiloResult, SimulationResult

_HOMES = {
    "Federation": "federation",
    "Lines": "federation",
    "SiloResult": "results",
    "SimulationResult": "results",
    "simulate": "federation",
}

__all__ = ["Federation", "Lines", "SiloResult", "SimulationResult", "simulate"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
