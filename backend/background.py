"""What the API process does beside answering: reconciling jobs, registering models, sweeping, forgetting."""

import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog
from fastapi import FastAPI

from backend.artifacts.retention import sweep
from backend.db.absence import log_failed_look
from backend.db.turn import Turn, turn_lock
from backend.events.fanout import FANOUT_SCHEMES, Fanout
from backend.federation.signer import ensure_keys
from backend.jobs.dispatch import CeleryDispatcher
from backend.jobs.reconciler import Reconciler
from backend.models.service import import_pending
from backend.notices.postman import Postman
from backend.retention import forget_some
from backend.server import Server

_SWEEP_SECONDS = 300.0
_LOOK_SECONDS = 1.0
_FORGET_SECONDS = 0.2
"""Of each second, while there is something to forget: the database has other work as well."""
_log = structlog.get_logger("backend.background")


class Caretaker:
    """A thread for slow work: registering models, and removing what has expired.

    Args:
        server: The control plane's world.
        may_work: Asked before each look: whether this process is the one that takes care.
    """

    def __init__(self, server: Server, *, may_work: Callable[[], bool] = lambda: True) -> None:
        self._server, self._may_work = server, may_work
        self._changed = server.bus.thread_listener()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="caretaker", daemon=True)
        self._swept_at = time.monotonic()
        self._forget_at = time.monotonic()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Stop; a model that is being registered is begun again at the next start."""
        self._stopped.set()
        self._changed.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._changed.clear()
            try:
                if self._may_work():
                    import_pending(self._server)
                    self._sweep()
                    self._forget()
            except Exception as error:  # noqa: BLE001 - a bug in one look must not end all that follow
                log_failed_look(_log, "caretaking_failed", error)
            self._changed.wait(_LOOK_SECONDS)

    def _sweep(self) -> None:
        if time.monotonic() - self._swept_at < _SWEEP_SECONDS:
            return
        self._swept_at = time.monotonic()
        sweep(self._server.database, self._server.store, now=self._server.now())
        _renew_keys(self._server)

    def _forget(self) -> None:
        now = time.monotonic()
        if now < self._forget_at:
            return
        while forget_some(self._server.database, self._server.settings, now=self._server.now()):
            if self._stopped.is_set() or time.monotonic() - now > _FORGET_SECONDS:
                self._forget_at = now + _LOOK_SECONDS
                return
        self._forget_at = now + _SWEEP_SECONDS


def _renew_keys(server: Server) -> None:
    """Keep the spec-signer's certificate valid, however long this process runs."""
    with server.database.write() as session:
        ensure_keys(session, server.authority, days=server.settings.certificate_days, now=server.now())


@asynccontextmanager
async def background(app: FastAPI) -> AsyncIterator[None]:
    """Run both while the application serves; streams end with it.

    Of several processes on one database one reconciles and takes care; another takes over within seconds.
    """
    server: Server = app.state.server
    settings = server.settings
    url = settings.broker_url.get_secret_value() if settings.broker_url else None
    turn = Turn(turn_lock(server.database, "background", folder=settings.state_dir), on_taken=server.bus.wake)
    reconciler = Reconciler(server, CeleryDispatcher(url, settings.broker_dir), may_work=lambda: turn.is_mine)
    caretaker = Caretaker(server, may_work=lambda: turn.is_mine)
    postman = Postman(server, may_work=lambda: turn.is_mine)
    fanout = Fanout(url, server.bus) if url is not None and url.startswith(FANOUT_SCHEMES) else None
    if fanout is not None:
        fanout.start()
    turn.start()
    reconciler.start()
    caretaker.start()
    postman.start()
    try:
        yield
    finally:
        server.bus.close()
        caretaker.stop()
        postman.stop()
        reconciler.stop()
        turn.stop()
        if fanout is not None:
            fanout.stop()
