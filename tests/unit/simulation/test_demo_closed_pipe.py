"""Help that nobody reads to its end."""

import os
import subprocess
import sys

from splitlearn.simulation import exit_codes


def test_a_closed_pipe_is_no_bug() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "splitlearn.simulation", "demo", "--help"]
    try:
        ended = subprocess.run(  # noqa: S603 - ourselves
            command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False
        )
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (exit_codes.UNREAD, "")
