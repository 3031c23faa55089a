"""``python -m splitlearn.processes.bound PARENT COMMAND...``: become the command, and end with the parent.

Linux tells a process of its parent's death if it asks for that (prctl(2), PR_SET_PDEATHSIG); the wish
survives the exec. Elsewhere the command runs without it, and whoever kills its parent has to end it.
Asking between fork and exec instead would run Python code in a forked copy of a program with threads.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Bind this process to its parent and become the command."""
    parent, command = int(arguments[0]), arguments[1:]
    end_with_parent(signal.SIGTERM)
    if os.getppid() != parent:  # it died before we could ask
        sys.exit(128 + signal.SIGTERM)
    os.execv(command[0], command)  # noqa: S606 - a list of words from our own parent, no shell


def end_with_parent(signum: int) -> None:
    """Let this process get a signal when its parent dies; on Linux alone."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0)


if __name__ == "__main__":
    main(sys.argv[1:])
