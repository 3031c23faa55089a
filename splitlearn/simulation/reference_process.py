"""The centralised reference as a child process: asked by a file, listened to line by line, ended with us."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
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
FOLDER = ".reference"
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


class ReferenceProcess:
    """The reference in a process of its own, ended when :meth:`run` ends, however it does.

    Args:
        request: The job and its rows.
        work_dir: A folder that only this run uses. Its ``.reference`` holds the rows meanwhile, for their
            owner only, and is gone afterwards.
        on_step: Told of every step.
        program: What is started; the paths of request and answer follow.
    """

    def __init__(
        self,
        request: CentralisedRequest,
        *,
        work_dir: Path,
        on_step: Callable[[ReferenceStep], None],
        program: tuple[str, ...] = (sys.executable, "-m", _MODULE),
    ) -> None:
        self._request, self._on_step, self._program = request, on_step, program
        # A known name, not a drawn one: an exception in the middle of drawing would leave the folder behind.
        self._folder = work_dir / FOLDER
        self._child: subprocess.Popen[str] | None = None
        self._is_cancelled = False

    def run(self) -> CentralisedAnswer:
        """Run it to its end; once.

        Raises:
            CentralisedError: It failed; with what it said.
            StorageError: The request cannot be written.
            KeyboardInterrupt: :meth:`cancel` was called.
        """
        try:
            shutil.rmtree(self._folder, ignore_errors=True)  # of a run that was killed
            self._folder.mkdir(mode=0o700)
            return self._run()
        except OSError as error:
            raise StorageError(
                f"the centralised reference cannot be started in {self._folder} ({error.strerror}); "
                "free space, or use --no-centralised"
            ) from error
        finally:
            self._end()
            shutil.rmtree(self._folder, ignore_errors=True)

    def cancel(self) -> None:
        """Ask the run to end now; also from a signal handler, in the middle of anything."""
        self._is_cancelled = True
        if self._child is not None:
            self._child.terminate()

    def _run(self) -> CentralisedAnswer:
        asked, answered, said = (
            self._folder / name for name in ("request.json", "answer.json", "errors.txt")
        )
        write_document(asked, self._request)
        with said.open("wb") as errors:
            exit_code = self._listen([*self._program, str(asked), str(answered)], errors)
        if self._is_cancelled:
            raise KeyboardInterrupt
        if exit_code:
            raise CentralisedError(
                f"the centralised reference failed (exit code {exit_code}): {_last_words(said)}; the silos' "
                "results are complete without it: use --no-centralised to leave it out"
            )
        return _answer(answered)

    def _listen(self, command: list[str], errors: IO[bytes]) -> int:
        if self._is_cancelled:
            raise KeyboardInterrupt
        # A process group of its own: a Ctrl-C reaches us alone, and we end the child.
        self._child = subprocess.Popen(  # noqa: S603 - our own interpreter and module, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            process_group=0,
        )
        if self._is_cancelled:  # while it was being started
            self._child.terminate()
        assert self._child.stdout is not None
        for line in self._child.stdout:
            step = _step(line)
            if step is not None:
                self._on_step(step)
        return self._child.wait()

    def _end(self) -> None:
        child = self._child
        if child is None:
            return
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
