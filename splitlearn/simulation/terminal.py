"""Standard output, which whoever reads it may close at any moment. Torch-free."""

import os
import signal
import sys

from rich.console import Console

from splitlearn.simulation.interruption import Interruption


class Terminal(Console):
    """Prints, until nobody reads any more; then it is silent, and interrupts the run.

    Args:
        interruption: Told that the output was closed (``trunkline demo | head``).
    """

    def __init__(self, interruption: Interruption) -> None:
        super().__init__(highlight=False)
        self._interruption = interruption

    def on_broken_pipe(self) -> None:
        """Go on without output: the run has to end in order, and Python flushes once more at its exit."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        self._interruption.interrupt(signal.SIGPIPE)
