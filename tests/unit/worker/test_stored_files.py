"""What a worker keeps of jobs on its disk, and for how long."""

import os
import time
from pathlib import Path

from worker.stored_files import drop_folder, drop_idle_folders

DAYS = 7.0


def job(parent: Path, name: str, *, days_ago: float) -> Path:
    """A job's folder whose newest file was written so long ago; the folders are older."""
    file = parent / name / "checkpoints" / "state"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"tensors")
    for path, days in ((file, days_ago), (file.parent, 99), (parent / name, 99)):
        at = time.time() - days * 86_400
        os.utime(path, (at, at))
    return parent / name


def test_forgets_jobs_in_which_nothing_was_written_for_days(tmp_path: Path) -> None:
    idle, used = job(tmp_path, "idle", days_ago=8), job(tmp_path, "used", days_ago=6)
    drop_idle_folders(tmp_path, days=DAYS)
    assert (idle.exists(), used.exists()) == (False, True)


def test_a_worker_that_never_hosted_has_nothing_to_forget(tmp_path: Path) -> None:
    drop_idle_folders(tmp_path / "jobs", days=DAYS)


def test_what_is_not_there_is_dropped_already(tmp_path: Path) -> None:
    drop_folder(tmp_path / "job")
