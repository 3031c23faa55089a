"""The centralised reference as a child process: asked by a file, listened to line by line, ended with us."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from splitlearn.errors import StorageError, TrainingError
from splitlearn.simulation.centralised_files import (
    CentralisedAnswer,
    CentralisedRequest,
    read_document,
    write_document,
)

_MODULE = "splitlearn.simulation.centralised"
_LAST_SECONDS = 5.0
_MAX_ERROR_CHARACTERS = 500


class CentralisedError(TrainingError):
    """The centralised reference failed; the federation's own results are not touched by that."""

    code = "centralised"


@dataclass(frozen=True, slots=True)
class ReferenceStep:
    """The reference has finished a step: its number from 0, and its mean loss (None without labels)."""

    step: int
    loss: float | None


def run_reference(
    request: CentralisedRequest,
    *,
    work_dir: Path,
    on_step: Callable[[ReferenceStep], None],
    program: tuple[str, ...] = (sys.executable, "-m", _MODULE),
) -> CentralisedAnswer:
    """Run the reference in a process of its own, and end it when this call ends, however it does.

    Args:
        request: The job and its rows.
        work_dir: Gets a folder that is gone afterwards; the rows lie in it meanwhile, for their owner only.
        on_step: Told of every step.
        program: What is started; the two files' paths follow.

    Raises:
        CentralisedError: It failed; with what it said.
        StorageError: The request cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".reference-", dir=work_dir) as folder:
            return _run(request, Path(folder), on_step, program)
    except OSError as error:
        raise StorageError(
            f"the centralised reference cannot be started in {work_dir} ({error.strerror}); "
            "free space, or use --no-centralised"
        ) from error


def _run(
    request: CentralisedRequest,
    folder: Path,
    on_step: Callable[[ReferenceStep], None],
    program: tuple[str, ...],
) -> CentralisedAnswer:
    asked, answered, said = folder / "request.json", folder / "answer.json", folder / "errors.txt"
    write_document(asked, request)
    with said.open("wb") as errors, _child([*program, str(asked), str(answered)], errors) as child:
        assert child.stdout is not None
        for line in child.stdout:
            step = _step(line)
            if step is not None:
                on_step(step)
        exit_code = child.wait()
    if exit_code:
        raise CentralisedError(
            f"the centralised reference failed (exit code {exit_code}): {_last_words(said)}; the silos' "
            "results are complete without it: use --no-centralised to leave it out"
        )
    return _answer(answered)


@contextmanager
def _child(command: list[str], errors: IO[bytes]) -> Iterator[subprocess.Popen[str]]:
    # A process group of its own: a Ctrl-C reaches us alone, and we end the child.
    child = subprocess.Popen(  # noqa: S603 - our own interpreter and module, no shell
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        process_group=0,
    )
    try:
        yield child
    finally:
        _end(child)


def _end(child: subprocess.Popen[str]) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(timeout=_LAST_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    if child.stdout is not None:
        child.stdout.close()


def _step(line: str) -> ReferenceStep | None:
    """Read one line of the child's; None for what a library may print in between."""
    try:
        content = json.loads(line)
        return ReferenceStep(int(content["step"]), content["loss"])
    except (ValueError, KeyError, TypeError):
        return None


def _answer(path: Path) -> CentralisedAnswer:
    try:
        return read_document(path, CentralisedAnswer)
    except StorageError as error:
        raise CentralisedError(
            f"the centralised reference left no answer ({error.message}); use --no-centralised"
        ) from error


def _last_words(path: Path) -> str:
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:_MAX_ERROR_CHARACTERS].rstrip(".;") if lines else "it said nothing"
