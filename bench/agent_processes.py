"""The largest memory of an agent's processes, watched from outside while a job runs."""

import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Literal, Self

import psutil

from splitlearn.simulation.platform.deployment import Deployment
from splitlearn.simulation.platform.memory import peak_memory_of

_LOOK_SECONDS = 0.2
Part = Literal["supervisor", "forker", "job"]


class AgentPeaks:
    """Looks at a silo's agent until the block is left; each peak only grows while its process lives.

    Args:
        deployment: Starts the agent, sooner or later.
        silo: Whose agent.

    Attributes:
        peaks: Largest resident memory in bytes: of the agent's ``supervisor``, of its ``forker`` (which
            imports everything and computes nothing), of any ``job`` process. Pages that a job's process
            shares with the forker count in both.
    """

    def __init__(self, deployment: Deployment, *, silo: str) -> None:
        self._deployment, self._silo = deployment, silo
        self.peaks: dict[Part, int] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="agent's memory", daemon=True)

    def __enter__(self) -> Self:
        """Begin to look."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(_LOOK_SECONDS):
            for part, pid in self._processes():
                peak = peak_memory_of(pid)
                if peak is not None:
                    self.peaks[part] = max(peak, self.peaks.get(part, 0))

    def _processes(self) -> Iterator[tuple[Part, int]]:
        try:
            supervisor = psutil.Process(self._deployment.agent_pid(self._silo))
            yield "supervisor", supervisor.pid
            for forker in supervisor.children():
                yield "forker", forker.pid
                for job in forker.children():
                    yield "job", job.pid
        except (KeyError, psutil.Error):
            return  # not started yet, or gone while we looked
