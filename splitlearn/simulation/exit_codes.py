"""What a command of Trunkline ends with; ``docs/exit-codes.md`` tells the user. Torch-free.

An error of the tree in :mod:`splitlearn.errors` ends a command with its own ``exit_code``.
"""

import signal

OK = 0
BUG = 1
"""An error that is none of ours to expect: a bug to report."""
USAGE = 2
_SIGNAL_BASE = 128  # a shell reports a process that a signal ended in the same way


def of_signal(signum: int) -> int:
    """Return the exit code of a command that a signal ended: 130 for Ctrl-C, 143 for SIGTERM."""
    return _SIGNAL_BASE + signum


INTERRUPTED = of_signal(signal.SIGINT)
TERMINATED = of_signal(signal.SIGTERM)
UNREAD = of_signal(signal.SIGPIPE)
