"""A silo's session of generation at the control plane: opened, looked after, ended. Torch-free."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from types import TracebackType
from typing import Self

from splitlearn.control_plane.client import PartyClient
from splitlearn.control_plane.errors import FolderInUseError, RefusedError, UnreachableError
from splitlearn.control_plane.generation_schemas import OpenedGeneration, SiloGeneration
from splitlearn.control_plane.requests import OnReach, ignore_reach
from splitlearn.control_plane.session import Session
from splitlearn.control_plane.state_folder import StateFolder
from splitlearn.errors import LinkError, StorageError, TrunklineError

_ENDED, _HOSTED = "ended", "hosted"
_LAST_WORD_SECONDS = 3.0


class NoWorkerError(LinkError):
    """No worker took the session up in time."""

    code = "no_worker"
    public = "no worker was free"


class GenerationEndedError(RefusedError):
    """The session has ended before the silo was through; ``code`` says why."""


@asynccontextmanager
async def joined(state: StateFolder, *, on_reach: OnReach = ignore_reach) -> AsyncIterator[Session]:
    """Speak for the silo: in the session of the agent that runs, or for ourselves where none does.

    An agent's session is shared by its process's name, which lies in the state folder for its owner alone:
    logging in by another name would shut the agent out.

    Raises:
        StorageError: Another process holds the folder and has not logged in yet.
        TrunklineError: The control plane refused.
    """
    with ExitStack() as stack:
        boot_id = None
        try:
            stack.enter_context(state.locked())
        except FolderInUseError as error:
            boot_id = state.boots().last
            if boot_id is None:
                raise StorageError(
                    f"another process uses {state.path} and has not logged in yet; try again in a moment"
                ) from error
        async with Session(state, boot_id=boot_id, on_reach=on_reach) as session:
            yield session


class GenerationSession:
    """One session of generation; an async context manager that opens it, and ends it on the way out.

    Args:
        client: Of this silo.
        job: The job's id.
        wait_seconds: For a worker, each time.
    """

    def __init__(self, client: PartyClient, job: str, *, wait_seconds: float) -> None:
        self._client, self._job, self._wait_seconds = client, job, wait_seconds
        self._opened: OpenedGeneration | None = None

    @property
    def opened(self) -> OpenedGeneration:
        """The session as it was opened: specification, signature, round."""
        assert self._opened is not None, "entered"
        return self._opened

    async def __aenter__(self) -> Self:
        """Open it.

        Raises:
            RefusedError: The job has no result, the silo no part in it, or too many are open.
        """
        self._opened = await self._client.open_generation(self._job, secrets.token_hex(16))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it; where that is not heard, the control plane ends it after a while of silence."""
        with contextlib.suppress(TrunklineError, TimeoutError):
            async with asyncio.timeout(_LAST_WORD_SECONDS):
                await self._client.end_generation(self._job, self.opened.id, patience_seconds=0)

    async def hosted(self, *, after_epoch: int) -> SiloGeneration:
        """Wait until a worker hosts it under a higher epoch, and return how it stands.

        Raises:
            GenerationEndedError: It has ended.
            NoWorkerError: No worker took it up in time; says what is waited for.
        """
        until = time.monotonic() + self._wait_seconds
        while True:
            standing = await self._look()
            if standing.state == _HOSTED and standing.epoch > after_epoch:
                return standing
            if time.monotonic() >= until:
                raise NoWorkerError(
                    f"no worker was free within {self._wait_seconds:g} s (--wait): {standing.reason}; "
                    "try again, or wait longer"
                )
            await asyncio.sleep(standing.poll_seconds)

    async def moved(self, epoch: int) -> None:
        """Look after a session that is hosted; returns when its worker has lost it.

        Raises:
            GenerationEndedError: It has ended.
        """
        while True:
            standing = await self._look()
            if standing.state != _HOSTED or standing.epoch > epoch:
                return
            await asyncio.sleep(standing.poll_seconds)

    async def _look(self) -> SiloGeneration:
        """Return how it stands; an absence of the control plane is outlasted, as long as it may be."""
        patience = self.opened.silence_seconds
        try:
            standing = await self._client.generation(self._job, self.opened.id, patience_seconds=patience)
        except UnreachableError as error:
            raise GenerationEndedError(
                f"the control plane was away for {patience:g} s, after which a session ends: {error.message}",
                code="control_plane_away",
            ) from error
        if standing.state == _ENDED:
            raise GenerationEndedError(f"the session has ended: {standing.reason}", code=standing.reason_code)
        return standing
