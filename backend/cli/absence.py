"""A control plane that a command has reached, and that a proxy says is away: waited for, and said so."""

import time

import typer

PATIENCE_SECONDS = 60.0
"""What was there and is away comes back sooner, or not at all."""

_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 5.0


class Absence:
    """Waits while the control plane is away, with growing pauses; says so once, on standard error.

    Args:
        url: The control plane's address.
        patience_seconds: Longest absence.
    """

    def __init__(self, url: str, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._url, self._patience_seconds = url, patience_seconds
        self._since: float | None = None
        self._pause_seconds = _FIRST_PAUSE_SECONDS

    def wait(self, why: str) -> bool:
        """Wait a moment; False when patience is over."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
            typer.echo(f"trunkline: the control plane at {self._url} is away ({why}); waiting", err=True)
        if now - self._since > self._patience_seconds:
            return False
        time.sleep(self._pause_seconds)
        self._pause_seconds = min(2 * self._pause_seconds, _LONGEST_PAUSE_SECONDS)
        return True

    def over(self) -> None:
        """Note that it answers."""
        if self._since is not None:
            seconds = time.monotonic() - self._since
            typer.echo(f"trunkline: the control plane is back after {seconds:.0f} s", err=True)
        self._since, self._pause_seconds = None, _FIRST_PAUSE_SECONDS
