"""Ctrl-C while a program still loads its libraries: a word and an exit code, no traceback.

Entry points import nothing else before they are inside of it.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_INTERRUPTED = 130
"""As ``splitlearn.simulation.exit_codes`` and every shell has it."""


@contextmanager
def interruptible(program: str) -> Iterator[None]:
    """End the program where Ctrl-C comes and nobody below waits for it.

    Args:
        program: Its name, as it is typed.

    Raises:
        SystemExit: With 130.
    """
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write(f"{program}: interrupted\n")
        raise SystemExit(_INTERRUPTED) from None
    except SystemExit as ended:
        if _is_interrupted(ended):
            sys.stderr.write(f"{program}: interrupted\n")
        raise


def _is_interrupted(ended: SystemExit) -> bool:
    """Whether typer, which says nothing, has made this of Ctrl-C."""
    return ended.__context__ is not None and isinstance(ended.__context__.__cause__, KeyboardInterrupt)


@contextmanager
def loading(program: str) -> Iterator[None]:
    """End the program at Ctrl-C at once, without a word to the libraries that it loads in here.

    For torch and transformers: an interruption in the middle of their imports becomes an error of their own.

    Args:
        program: Its name, as it is typed.
    """

    def end(*_: object) -> None:
        os.write(sys.stderr.fileno(), f"{program}: interrupted\n".encode())
        os._exit(_INTERRUPTED)

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
