"""A job on the real platform: run to its end, then asked what it knows of itself."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict
from transformers.utils import logging as transformers_logging

from splitlearn.simulation.interruption import Interruption
from splitlearn.simulation.platform.control_plane import ControlPlane
from splitlearn.simulation.platform.federation import PlatformFederation
from splitlearn.simulation.results import SimulationResult

_PAGE = 1000
_OWN_SETTINGS = "TRUNKLINE_"


class _Item(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Event(_Item):
    """Something that happened to the job; what its kind does not have is None.

    Attributes:
        kind: Such as ``job_state``, ``lease_granted``, ``round_committed``.
        at: When, by the control plane.
        to: State that the job came to.
        round: Round that was committed.
        seconds: Its wall time at the worker, from the end of the round before.
    """

    kind: str
    at: datetime
    to: str | None = None
    round: int | None = None
    seconds: float | None = None


class Number(_Item):
    """A number of a party; ``step`` is -1 for one of a whole round."""

    party: str
    name: str
    round: int
    step: int
    value: float
    received_at: datetime


@dataclass(frozen=True, slots=True)
class Told:
    """What a completed job came to, and what the control plane knows of it, oldest first."""

    result: SimulationResult
    events: tuple[Event, ...]
    numbers: tuple[Number, ...]

    def values(self, name: str, *, party: str) -> list[Number]:
        """Return one kind of number of all parties whose name begins so."""
        return [number for number in self.numbers if number.name == name and number.party.startswith(party)]


def run_to_end(federation: PlatformFederation) -> Told:
    """Run a job, ask about it, and stop every process, however it ends.

    Args:
        federation: Made to keep running; SIGINT and SIGTERM cancel it.

    Raises:
        KeyboardInterrupt: A signal came.
        TrunklineError: Whatever ended the job before its end.
    """
    transformers_logging.disable_progress_bar()
    with Interruption() as interruption, interruption.calls(federation.cancel):
        try:
            result = federation.run()
            assert federation.job_id is not None, "it was submitted"
            return _ask(federation.control_plane, federation.job_id, result)
        finally:
            federation.close()


def platform_environment() -> dict[str, str]:
    """Return what the platform's processes inherit: all of ours, but for somebody's settings of Trunkline."""
    own = os.environ  # noqa: TID251 - the children get it
    return {name: value for name, value in own.items() if not name.startswith(_OWN_SETTINGS)}


def _ask(control_plane: ControlPlane, job_id: str, result: SimulationResult) -> Told:
    events = control_plane.events(job_id)
    return Told(
        result,
        tuple(Event.model_validate(event) for event in events),
        tuple(Number.model_validate(item) for item in _items(control_plane, f"/jobs/{job_id}/metrics")),
    )


def _items(control_plane: ControlPlane, path: str) -> Iterator[Mapping[str, Any]]:
    after: str | None = None
    while True:
        query = {"limit": _PAGE, **({"after": after} if after else {})}
        page = control_plane.call("GET", path, query=query)
        yield from page["items"]
        after = page["next"]
        if len(page["items"]) < _PAGE:
            return
