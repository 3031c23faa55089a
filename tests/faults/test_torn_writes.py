"""The power goes before any write: the old state or the new one is found, never a mix; the bits stay."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_SECONDS = 550


def cut_everywhere(scenario: str, folder: Path) -> dict[str, Any]:
    done = subprocess.run(  # noqa: S603 - our own interpreter and module, no shell
        [sys.executable, "-m", "tests.faults.power_cuts", scenario, str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # noqa: TID251 - a child needs a PATH
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("scenario", "least_writes"),
    [("small-file", 4), ("checkpoint", 8), ("replaced-checkpoint", 8), ("note", 4)],
)
def test_a_cut_before_any_write_leaves_the_old_or_the_new(
    scenario: str, least_writes: int, tmp_path: Path
) -> None:
    found = cut_everywhere(scenario, tmp_path)
    assert found["problems"] == []
    assert found["writes"] >= least_writes


@pytest.mark.slow
def test_a_cut_before_any_write_of_a_job_changes_no_bit(tmp_path: Path) -> None:
    found = cut_everywhere("whole-job", tmp_path)
    assert found["problems"] == []
    assert found["writes"] >= 30
