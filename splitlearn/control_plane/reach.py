"""Whether the control plane answers, as a program's readiness tells it."""

import threading

from splitlearn.control_plane.requests import Absent, Back


class Reach:
    """The newest word on it; any thread may note or read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._missing = "control plane: not logged in yet"

    @property
    def missing(self) -> str:
        """Why the control plane does not count as there; empty when it does."""
        with self._lock:
            return self._missing

    def change(self, change: Absent | Back) -> None:
        """Note whether the control plane answers."""
        with self._lock:
            self._missing = f"control plane: {change.sentence}" if isinstance(change, Absent) else ""

    def logged_in(self) -> None:
        """Note that this process speaks for its party."""
        with self._lock:
            self._missing = ""
