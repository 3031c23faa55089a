"""What the API process does beside answering: reconciling jobs, registering models, sweeping, renewing."""

import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from fastapi import FastAPI

from backend.artifacts.retention import sweep
from backend.federation.signer import ensure_keys
from backend.jobs.dispatch import CeleryDispatcher
from backend.jobs.reconciler import Reconciler
from backend.models.service import import_pending
from backend.server import Server

_SWEEP_SECONDS = 300.0
_LOOK_SECONDS = 1.0
_log = structlog.get_logger("backend.background")


class Caretaker:
    """A thread for slow work: registering models, and removing what has expired."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._changed = server.bus.thread_listener()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="caretaker", daemon=True)
        self._swept_at = time.monotonic()

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
                import_pending(self._server)
                self._sweep()
            except Exception:  # noqa: BLE001 - a bug in one look must not end all that follow
                _log.exception("caretaking_failed")
            self._changed.wait(_LOOK_SECONDS)

    def _sweep(self) -> None:
        if time.monotonic() - self._swept_at < _SWEEP_SECONDS:
            return
        self._swept_at = time.monotonic()
        sweep(self._server.database, self._server.store, now=self._server.now())
        _renew_keys(self._server)


def _renew_keys(server: Server) -> None:
    """Keep the spec-signer's certificate valid, however long this process runs."""
    with server.database.write() as session:
        ensure_keys(session, server.authority, days=server.settings.certificate_days, now=server.now())


@asynccontextmanager
async def background(app: FastAPI) -> AsyncIterator[None]:
    """Run both while the application serves; streams end with it."""
    server: Server = app.state.server
    settings = server.settings
    url = settings.broker_url.get_secret_value() if settings.broker_url else None
    reconciler = Reconciler(server, CeleryDispatcher(url, settings.broker_dir))
    caretaker = Caretaker(server)
    reconciler.start()
    caretaker.start()
    try:
        yield
    finally:
        server.bus.close()
        caretaker.stop()
        reconciler.stop()
