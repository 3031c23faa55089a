"""A person's client that asks again while the control plane is away, as a page would do."""

import time
from typing import Any

import httpx2

from splitlearn.errors import LinkError
from splitlearn.simulation.platform.control_plane import ControlPlane

_PATIENCE_SECONDS = 300.0
_PAUSE_SECONDS = 0.1


class PatientControlPlane(ControlPlane):
    """Like :class:`ControlPlane`, with patience."""

    def _ask(self, method: str, path: str, **arguments: Any) -> httpx2.Response:
        until = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                return super()._ask(method, path, **arguments)
            except LinkError:
                if time.monotonic() > until:
                    raise
                time.sleep(_PAUSE_SECONDS)
