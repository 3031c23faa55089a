import itertools
import subprocess
import sys

import pytest
import torch

from splitlearn.training import speed
from splitlearn.training.speed import measure_speed


def test_every_part_is_measured() -> None:
    found = measure_speed(torch.device("cpu"), widths=(32, 64))
    assert [rate.width for rate in found.rates] == [32, 64]
    parts = (
        found.layer_seconds,
        *(rate.flops_per_second for rate in found.rates),
        found.logits_per_second,
        found.updates_per_second,
    )
    assert all(part > 0 for part in parts)


def test_takes_the_shortest_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a worker starts, other programs compute on the same cores."""
    taken = itertools.cycle([0.9, 0.25, 0.7])
    monkeypatch.setattr(speed, "_timed", lambda *_: next(taken))
    found = speed.measure_speed(torch.device("cpu"), widths=(32,))
    assert found.logits_per_second == 4 * 64 * 2048 / 0.25


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
