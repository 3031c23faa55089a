import subprocess
import sys

import torch

from splitlearn.training.speed import measure_speed


def test_every_part_is_measured() -> None:
    speed = measure_speed(torch.device("cpu"), widths=(32, 64))
    assert [rate.width for rate in speed.rates] == [32, 64]
    parts = (
        speed.layer_seconds,
        *(rate.flops_per_second for rate in speed.rates),
        speed.logits_per_second,
        speed.updates_per_second,
    )
    assert all(part > 0 for part in parts)


def test_draws_nothing_from_the_global_generator() -> None:
    torch.manual_seed(7)
    expected = torch.rand(4)
    torch.manual_seed(7)
    measure_speed(torch.device("cpu"), widths=(32,))
    assert torch.equal(torch.rand(4), expected)


_COUNT_THREADS = """
import time
import psutil, torch
from splitlearn.training.speed import measure_speed

torch.set_num_threads(3)
process = psutil.Process()
before = process.num_threads()
measure_speed(torch.device("cpu"), widths=(64,))
deadline = time.monotonic() + 20  # a thread that was let go takes a moment to end
while process.num_threads() > before and time.monotonic() < deadline:
    time.sleep(0.01)
print(process.num_threads() - before)
"""


def test_leaves_no_thread_behind() -> None:
    """With another thread's OpenMP pool about, GCC's runtime lets no thread wait awake."""
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", _COUNT_THREADS], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["0"]
