"""``trunkline-agent logs``, ``export`` and ``forget``: what is kept here of jobs."""

import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from client_agent.cli.options import DEFAULT_STATE_DIR, AsJson, StateDir, resolved
from client_agent.cli.output import show
from client_agent.copying import copy_result
from client_agent.places import AgentFolder
from splitlearn.errors import StorageError

Job = Annotated[str, typer.Argument(help="The job's id, or how it begins.")]
_FOLLOW_SECONDS = 0.2


def logs(
    job: Annotated[
        str | None, typer.Argument(help="The job's id, or how it begins; without it, the agent's own log.")
    ] = None,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")] = False,
    state_dir: StateDir = DEFAULT_STATE_DIR,
) -> None:
    """Print a log. Logs hold no row of a data set."""
    folder = AgentFolder(resolved(state_dir))
    path = folder.log if job is None else folder.find_job(job).log
    if not path.is_file():
        raise StorageError(f"there is no log {path} yet; the agent has not run")
    for text in _lines(path, follow=follow):
        sys.stdout.write(text)
        sys.stdout.flush()


def export(
    job: Job,
    target: Annotated[
        Path, typer.Argument(help="Folder to make; nothing, or an empty folder, may be there.")
    ],
    *,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    as_json: AsJson = False,
) -> None:
    """Copy a job's result: a PEFT adapter or a model, as plain transformers loads it."""
    folder = AgentFolder(resolved(state_dir)).find_job(job)
    place = target.expanduser().absolute()
    copy_result(folder.result, place)
    show({"job": folder.job_id, "result": str(place)}, as_json=as_json, text=f"the result is in {place}")


def forget(job: Job, *, state_dir: StateDir = DEFAULT_STATE_DIR, as_json: AsJson = False) -> None:
    """Delete what is kept here of a job: checkpoints, result and log."""
    folder = AgentFolder(resolved(state_dir)).find_job(job)
    with folder.held():
        try:
            shutil.rmtree(folder.path)
        except OSError as error:
            raise StorageError(
                f"cannot delete {folder.path} ({error.strerror}); correct its permissions"
            ) from error
    show({"forgotten": folder.job_id}, as_json=as_json, text=f"forgot job {folder.job_id}")


def _lines(path: Path, *, follow: bool) -> Iterator[str]:
    """Yield a log's lines; following, also those of the file that takes its place when it is rotated."""
    while True:
        with path.open(encoding="utf-8", errors="replace") as file:
            inode = path.stat().st_ino
            while True:
                if text := file.read():
                    yield text
                elif not follow:
                    return
                elif _inode(path) != inode:
                    break
                else:
                    time.sleep(_FOLLOW_SECONDS)


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None
