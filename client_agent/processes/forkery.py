"""The supervisor's end of the forker: starts it, orders processes from it, starts it again if it dies."""

import asyncio
import logging
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from client_agent.log import LOGGER, open_privately
from client_agent.processes.job_process import JobProcess
from client_agent.processes.messages import Forked, FromForker, Loaded, Order, line
from splitlearn.errors import ProcessError, StorageError
from splitlearn.party_environment import silo_environment

_START_SECONDS = 120.0  # to load torch and transformers on a slow, busy machine
_STOP_SECONDS = 2.0
_FORKER = "client_agent.processes.forker"
_ONE_THREAD_WHILE_LOADING: Mapping[str, str] = {
    # numpy's BLAS makes its threads when it is loaded, and a process with threads must not fork. Torch has
    # a library of its own, so nothing computes slower.
    "OPENBLAS_NUM_THREADS": "1",
    # The agent never asks a hub for anything.
    "HF_HUB_OFFLINE": "1",
}

_log = logging.getLogger(LOGGER)


class Forkery:
    """Makes processes for jobs.

    Args:
        environment: The supervisor's.
        log_path: Gets what the forker has to say, which is nothing unless it breaks.
    """

    def __init__(self, *, environment: Mapping[str, str], log_path: Path) -> None:
        self._environment = silo_environment({**environment, **_ONE_THREAD_WHILE_LOADING})
        self._log_path = log_path
        self._lock = asyncio.Lock()
        self._forker: _Forker | None = None

    async def start(self) -> None:
        """Begin to load, so that the first order need not wait for it.

        Raises:
            StorageError: Its log cannot be written.
        """
        if self._forker is None or not self._forker.is_alive:
            is_again = self._forker is not None
            if self._forker is not None:
                self._forker.close()
            self._forker = await _Forker.started(self._environment, self._log_path)
            if is_again:
                _log.info("the forker is started again: process %d", self._forker.pid)

    async def fork(self, order: Order) -> JobProcess:
        """Return a new process for a job.

        Raises:
            ProcessError: The forker does not come up.
        """
        async with self._lock:  # one order at a time: the answer tells no more than the job
            await self.start()
            assert self._forker is not None
            return await self._forker.fork(order)

    def close(self) -> None:
        """End the forker. Processes that it made stay, until their own sockets are closed."""
        if self._forker is not None:
            self._forker.close()


class _Forker:
    """One process of ``client_agent.processes.forker``."""

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        control: socket.socket,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._process, self._control = process, control
        self._reader, self._writer = streams
        self._log_said = f"see the forker's log (process {process.pid})"
        self._forked: asyncio.Queue[Forked] = asyncio.Queue()
        self._exit_codes: dict[int, asyncio.Future[int]] = {}
        self._listener = asyncio.create_task(self._listen(), name="forker")

    @classmethod
    async def started(cls, environment: Mapping[str, str], log_path: Path) -> "_Forker":
        ours, theirs = socket.socketpair()
        try:
            process = _popen(theirs, environment, log_path)
        except OSError as error:
            ours.close()
            raise StorageError(
                f"cannot write {log_path} ({error.strerror}); free space or correct its permissions"
            ) from error
        finally:
            theirs.close()
        return cls(process, ours, await asyncio.open_unix_connection(sock=ours.dup()))

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return not self._listener.done()

    async def fork(self, order: Order) -> JobProcess:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._control, [line(order)], [theirs.fileno()])
            except OSError as error:
                ours.close()
                raise self._dead() from error
        forked = await self._next_forked()
        if forked is None:
            ours.close()
            raise self._dead()
        process = JobProcess(forked.pid, self._exit_code_of(forked.pid))
        await process.open(ours)
        return process

    async def _next_forked(self) -> Forked | None:
        answer = asyncio.create_task(self._forked.get())
        await asyncio.wait(
            {answer, self._listener}, timeout=_START_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        if answer.done():
            return answer.result()
        answer.cancel()
        return None

    def _dead(self) -> ProcessError:
        self.close()
        return ProcessError(
            f"the process that makes jobs' processes ended or took more than {_START_SECONDS:g} s; "
            f"{self._log_said}; it is started again"
        )

    async def _listen(self) -> None:
        with suppress(ConnectionError):
            while data := await self._reader.readline():
                message = FromForker.validate_json(data)
                if isinstance(message, Loaded):
                    _log.info("the forker, process %d, has loaded: jobs' processes begin at once", self.pid)
                elif isinstance(message, Forked):
                    self._exit_code_of(message.pid)
                    self._forked.put_nowait(message)
                elif (found := self._exit_codes.pop(message.pid, None)) is not None and not found.done():
                    found.set_result(message.code)
        # Running jobs do not notice, and closing it in order cancels this task before.
        _log.warning("the forker, process %d, has ended; the next job's process starts another", self.pid)

    def _exit_code_of(self, pid: int) -> "asyncio.Future[int]":
        return self._exit_codes.setdefault(pid, asyncio.get_running_loop().create_future())

    def close(self) -> None:
        self._listener.cancel()
        self._writer.close()
        self._control.close()
        try:
            self._process.wait(timeout=0)
        except subprocess.TimeoutExpired:
            self._process.terminate()  # it may be loading, and would not look at its socket yet
            self._process.wait(timeout=_STOP_SECONDS)


def _popen(
    control: socket.socket, environment: Mapping[str, str], log_path: Path
) -> "subprocess.Popen[bytes]":
    log_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(log_path, "ab", buffering=0, opener=open_privately) as log:
        return subprocess.Popen(  # noqa: S603 - our own interpreter and module, no shell
            [sys.executable, "-m", _FORKER, str(control.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=dict(environment),
            pass_fds=(control.fileno(),),
            process_group=0,  # a Ctrl-C in the terminal is the supervisor's to judge
        )
