import subprocess
import sys

import torch

from worker.speed import measure_trunk_tokens_per_second

_COUNT_THREADS = """
import time
import psutil, torch
from worker.speed import measure_trunk_tokens_per_second

torch.set_num_threads(3)
process = psutil.Process()
before = process.num_threads()
measure_trunk_tokens_per_second(torch.device("cpu"))
deadline = time.monotonic() + 20  # a thread that was let go takes a moment to end
while process.num_threads() > before and time.monotonic() < deadline:
    time.sleep(0.01)
print(process.num_threads() - before)
"""


def test_measuring_leaves_no_thread_behind() -> None:
    """With another thread's OpenMP pool about, GCC's runtime lets no thread wait awake."""
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", _COUNT_THREADS], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["0"]


def test_measuring_draws_nothing_from_the_global_generator() -> None:
    torch.manual_seed(7)
    expected = torch.rand(4)
    torch.manual_seed(7)
    measure_trunk_tokens_per_second(torch.device("cpu"))
    assert torch.equal(torch.rand(4), expected)
