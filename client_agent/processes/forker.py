"""``python -m client_agent.processes.forker FD``: loads everything once, then forks a process per job.

Loading torch and transformers takes seconds, many when several processes load at once; a fork takes
milliseconds and shares the memory. It is safe only in a process with a single thread, so nothing here may
start one: no tensor is touched, and the numeric libraries are told to keep to one thread while they load.
"""

import contextlib
import importlib
import os
import selectors
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import NoReturn

from client_agent.processes.messages import Exited, Forked, Loaded, Order, line

_PRELOADED = ("client_agent.runner",)
_MAX_FDS = 1
_MAX_ORDER_BYTES = 64 << 10
_BUG = 1


class _OrdersEndedError(Exception):
    """The supervisor is gone."""


def main() -> None:
    """Load, then serve orders until the supervisor is gone."""
    control = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C in the terminal is the supervisor's to judge
    for name in _PRELOADED:
        importlib.import_module(name)
    _refuse_threads()
    with contextlib.suppress(_OrdersEndedError):
        Forker(control).serve()


class Forker:
    """Serves the orders that come over a socket.

    Args:
        control: Connected to the supervisor; its end is the end.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._pending = b""
        self._wakeup, self._signalled = socket.socketpair()
        for end in (self._wakeup, self._signalled):
            end.settimeout(0)

    def serve(self) -> NoReturn:
        """Fork on order, and tell of every end.

        Raises:
            _OrdersEndedError: The supervisor is gone.
        """
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only a handler makes the wake-up happen
        signal.set_wakeup_fd(self._signalled.fileno())
        try:
            self._serve()
        finally:
            signal.set_wakeup_fd(-1)  # a process may still end after the socket is closed

    def _serve(self) -> NoReturn:
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(self._wakeup, selectors.EVENT_READ)
            self._tell(line(Loaded()))
            while True:
                ready = {key.fileobj for key, _ in selector.select()}
                if self._wakeup in ready:
                    self._wakeup.recv(4096)
                    self._reap()
                if self._control in ready:
                    self._take_order()

    def _take_order(self) -> None:
        data, descriptors, _, _ = socket.recv_fds(self._control, _MAX_ORDER_BYTES, _MAX_FDS)
        if not data:
            raise _OrdersEndedError
        order = Order.model_validate_json(data)  # one order per message: see the supervisor's side
        self._fork(order, socket.socket(fileno=descriptors[0]))

    def _fork(self, order: Order, channel: socket.socket) -> None:
        pid = os.fork()
        if pid == 0:
            self._become_job(order, channel)
        channel.close()  # its end must mean that the process is gone
        self._tell(line(Forked(job_id=order.job_id, pid=pid)))

    def _become_job(self, order: Order, channel: socket.socket) -> NoReturn:
        code = _BUG
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for end in (self._control, self._wakeup, self._signalled):
                end.close()
            from client_agent.runner import run_job  # noqa: PLC0415 - loaded by main(), a cycle above

            code = run_job(order, channel)
        except BaseException:  # noqa: BLE001 - whatever it is, this process must never go on as the forker
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)  # the forker's own clean-up is not this process's

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                self._tell(line(Exited(pid=pid, code=os.waitstatus_to_exitcode(status))))

    def _tell(self, message: bytes) -> None:
        try:
            self._control.sendall(message)
        except OSError as error:
            raise _OrdersEndedError from error


def _refuse_threads() -> None:
    tasks = Path("/proc/self/task")
    num_threads = len(list(tasks.iterdir())) if tasks.is_dir() else 1
    assert num_threads == 1, f"{num_threads} threads after loading: forking would be unsafe"


if __name__ == "__main__":
    main()
