"""The agent's own health and numbers, for a listener on this machine that is off unless a port is given.

The few lines of Prometheus' text format are written here: a library for them would be one more package for a
hospital to examine, for four numbers.
"""

import threading
from collections import Counter
from collections.abc import Sequence

from splitlearn.control_plane.reach import Reach

PHASES = ("preparing", "waiting", "training", "exporting", "finished", "refused", "failed", "ended")
"""Of a job here, as ``trunkline-agent jobs`` shows them."""


class AgentWatch:
    """Counts what the supervisor does; any thread may count or read.

    Attributes:
        reach: Whether the control plane answers.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reach = Reach()
        self._phases: dict[str, str] = {}
        self._counts: Counter[str] = Counter()

    def process_began(self) -> None:
        """Count a process of a job."""
        with self._lock:
            self._counts["starts"] += 1

    def process_died(self) -> None:
        """Count a process of a job that ended without its last word."""
        with self._lock:
            self._counts["deaths"] += 1

    def phase(self, job_id: str, phase: str) -> None:
        """Note what is done for a job now."""
        with self._lock:
            self._phases[job_id] = phase

    def dropped(self, job_id: str) -> None:
        """Forget a job that the control plane asks nothing about any more."""
        with self._lock:
            self._phases.pop(job_id, None)

    def not_ready(self) -> Sequence[str]:
        """Name what is not there."""
        missing = self.reach.missing
        return [missing] if missing else []

    def to_text(self) -> str:
        """Return the numbers in Prometheus' text format, version 0.0.4."""
        with self._lock:
            counts, phases = Counter(self._counts), Counter(self._phases.values())
        lines = [
            "# HELP trunkline_agent_jobs Jobs of this silo by what is done for them now.",
            "# TYPE trunkline_agent_jobs gauge",
            *(f'trunkline_agent_jobs{{phase="{phase}"}} {phases[phase]}' for phase in PHASES),
            "# HELP trunkline_agent_control_plane_reachable Whether the control plane answers.",
            "# TYPE trunkline_agent_control_plane_reachable gauge",
            f"trunkline_agent_control_plane_reachable {int(not self.reach.missing)}",
            "# HELP trunkline_agent_process_starts_total Processes that were started for jobs.",
            "# TYPE trunkline_agent_process_starts_total counter",
            f"trunkline_agent_process_starts_total {counts['starts']}",
            "# HELP trunkline_agent_process_deaths_total Of them, those that ended without a last word.",
            "# TYPE trunkline_agent_process_deaths_total counter",
            f"trunkline_agent_process_deaths_total {counts['deaths']}",
        ]
        return "\n".join(lines) + "\n"
