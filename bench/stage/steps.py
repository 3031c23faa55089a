"""The trunk's steps as workers themselves count them: also known while API and database are away."""

import re
from collections.abc import Mapping

import httpx2

from splitlearn.loopback import UNPROXIED

_STEPS = re.compile(r"^trunkline_worker_steps_total (\S+)$", re.MULTILINE)
_TIMEOUT_SECONDS = 2.0


class StepCounter:
    """Adds up what every process of every worker has counted, each from nought.

    Args:
        ports: By worker, where it tells its numbers.
    """

    def __init__(self, ports: Mapping[str, int]) -> None:
        self._ports = ports
        self._counted: dict[tuple[str, int], int] = {}
        self._client = httpx2.Client(mounts=UNPROXIED, timeout=_TIMEOUT_SECONDS)

    @property
    def total(self) -> int:
        """All steps that were seen."""
        return sum(self._counted.values())

    def look(self, worker: str, pid: int) -> None:
        """Ask a process how many steps it has done; one that does not answer has done no more."""
        try:
            told = self._client.get(f"http://127.0.0.1:{self._ports[worker]}/metrics").text
        except httpx2.HTTPError:
            return
        if (found := _STEPS.search(told)) is not None:
            self._counted[worker, pid] = max(self._counted.get((worker, pid), 0), int(float(found[1])))

    def close(self) -> None:
        """Close its connections."""
        self._client.close()
