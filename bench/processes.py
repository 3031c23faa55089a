"""Child processes of the benchmarks: started with a request, watched, and never left behind."""

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import IO, TypeVar

from pydantic import BaseModel, ValidationError

Document = TypeVar("Document", bound=BaseModel)

_ROOT = Path(__file__).parents[1]
_TAIL_CHARACTERS = 4000
_MAX_LINE_BYTES = 1 << 24
_END_SECONDS = 5.0


class ChildError(Exception):
    """A child process failed; the message ends with what it wrote to its standard error."""


class Child:
    """One running child; made by :func:`child`."""

    def __init__(
        self, name: str, process: asyncio.subprocess.Process, errors: IO[bytes], *, end_seconds: float
    ) -> None:
        self._name = name
        self._process = process
        self._errors = errors
        self._end_seconds = end_seconds

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def send(self, document: BaseModel) -> None:
        """Say something to the child.

        Not drained: a child that dies at once is reported by what it says, not as a broken pipe.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(document.model_dump_json().encode() + b"\n")

    async def receive(self, kind: type[Document]) -> Document:
        """Return the child's next document.

        Raises:
            ChildError: It ended, or wrote something else.
        """
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise await self._failure()
        try:
            return kind.model_validate_json(line)
        except ValidationError as error:
            raise ChildError(f"the {self._name} process answered {line[:200]!r}: {error}") from error

    async def finished(self) -> None:
        """Wait until the child has ended by itself.

        Raises:
            ChildError: Not with exit code 0.
        """
        if await self._process.wait() != 0:
            raise await self._failure()

    async def end(self) -> None:
        """End the child if it still runs: ask, then insist."""
        if self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), timeout=self._end_seconds)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def _failure(self) -> ChildError:
        code = await self._process.wait()
        self._errors.seek(0)
        tail = self._errors.read().decode(errors="replace")[-_TAIL_CHARACTERS:].strip()
        return ChildError(f"the {self._name} process ended with exit code {code}:\n{tail}")


@contextlib.asynccontextmanager
async def child(
    module: str, request: BaseModel, *, environment: Mapping[str, str], end_seconds: float = _END_SECONDS
) -> AsyncIterator[Child]:
    """Start ``python -m module``, hand it its request, and end it on leaving, whatever happened.

    Args:
        module: A program of this package.
        request: Its request.
        environment: All of its environment.
        end_seconds: After it was asked to end it is killed so much later.
    """
    with tempfile.TemporaryFile() as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            cwd=_ROOT,
            env=dict(environment),
            limit=_MAX_LINE_BYTES,
            start_new_session=True,  # Ctrl-C is for the parent, which then ends its children
        )
        running = Child(module.rpartition(".")[2], process, errors, end_seconds=end_seconds)
        try:
            running.send(request)
            yield running
        finally:
            await asyncio.shield(running.end())
