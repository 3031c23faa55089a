"""Transfers that last end soon after their caller was shut out: signed out, revoked, disabled, superseded."""

import time
from collections.abc import Iterator
from typing import Final

from backend.auth.callers import Caller, is_admitted
from backend.errors import NotSignedInError
from backend.server import Server

_LOOK_SECONDS: Final = 2.0


class Admission:
    """Asks now and then whether a caller may go on.

    Args:
        server: The world.
        caller: Whose transfer.
    """

    def __init__(self, server: Server, caller: Caller) -> None:
        self._server = server
        self._caller = caller
        self._looked_at = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether it is time to look again; looking reads the database."""
        return time.monotonic() - self._looked_at >= _LOOK_SECONDS

    def check(self) -> None:
        """Refuse a caller who was shut out since.

        Raises:
            NotSignedInError: The transfer has to stop where it is.
        """
        self._looked_at = time.monotonic()
        with self._server.database.read() as session:
            if not is_admitted(session, self._caller, now=self._server.now):
                raise NotSignedInError("the token was revoked or its session has ended during the transfer")

    def guard(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield chunks while their reader may have them; then the answer breaks off, short of its length."""
        for chunk in chunks:
            if self.is_due:
                self.check()
            yield chunk
