"""The whole federation in one process over memory links, and the centralised reference beside it."""

from splitlearn.simulation.federation import Lines, simulate
from splitlearn.simulation.results import SiloResult, SimulationResult

__all__ = ["Lines", "SiloResult", "SimulationResult", "simulate"]
