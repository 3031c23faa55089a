"""A listener for ``/healthz``, ``/readyz`` and ``/metrics`` in a thread of its own.

For programs that serve nothing else. What is answered is read from objects that the program changes anyway:
nothing is computed in the thread that computes.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from splitlearn.errors import LinkError
from splitlearn.watching.access import may_read

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SENTENCES = "text/plain; charset=utf-8"
_PATIENCE_SECONDS = 5.0
_LONGEST_PATH = 256


@dataclass(frozen=True, slots=True)
class Status:
    """What a program tells of itself.

    Attributes:
        not_ready: Sentences, each naming what is not ready and why; none when all is.
        metrics: Returns the numbers in Prometheus' text format, version 0.0.4.
    """

    not_ready: Callable[[], Sequence[str]]
    metrics: Callable[[], str]


class WatchListener:
    """Listens while it is entered.

    Args:
        status: What is told.
        host: Address to listen on.
        port: Its port; 0 takes a free one.
        token: Opens ``/metrics``; None opens it to this machine alone.
    """

    def __init__(self, status: Status, *, host: str, port: int, token: str | None = None) -> None:
        self._status, self._host, self._asked_port, self._token = status, host, port, token
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Begin to listen.

        Raises:
            LinkError: The address cannot be listened on.
        """
        try:
            self._server = _Server((self._host, self._asked_port), self._status, self._token)
        except (OSError, OverflowError) as error:
            raise LinkError(
                f"cannot listen on {self._host}:{self._asked_port} for health and metrics ({error}); "
                "end what uses that port, or choose another"
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="watching", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening."""
        assert self._server is not None
        assert self._thread is not None
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        assert self._server is not None, "entered"
        return int(self._server.server_address[1])


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a reader that stalls must not hold up the program's end

    def __init__(self, address: tuple[str, int], status: Status, token: str | None) -> None:
        super().__init__(address, _Handler)
        self.status, self.token = status, token


class _Handler(BaseHTTPRequestHandler):
    timeout = _PATIENCE_SECONDS

    server: _Server

    def do_GET(self) -> None:
        """Answer one request."""
        headers = {name: str(value) for name, value in self.headers.items()}
        may = may_read(token=self.server.token, peer=str(self.client_address[0]), headers=headers)
        status, kind, text = _answer(self.server.status, self.path, may=may)
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def version_string(self) -> str:
        """Name no version to whoever asks."""
        return "trunkline"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Write no line per probe: there is one every few seconds."""


def _answer(status: Status, path: str, *, may: bool) -> tuple[HTTPStatus, str, str]:
    match path[:_LONGEST_PATH].partition("?")[0]:
        case "/healthz":
            return HTTPStatus.OK, _SENTENCES, "ok\n"
        case "/readyz":
            missing = status.not_ready()
            if missing:
                return HTTPStatus.SERVICE_UNAVAILABLE, _SENTENCES, "\n".join(missing) + "\n"
            return HTTPStatus.OK, _SENTENCES, "ready\n"
        case "/metrics" if may:
            return HTTPStatus.OK, METRICS_TYPE, status.metrics()
        case "/metrics":
            text = "metrics are for this machine, or for whoever shows the token that is set for them\n"
            return HTTPStatus.FORBIDDEN, _SENTENCES, text
        case _:
            return HTTPStatus.NOT_FOUND, _SENTENCES, "there is only /healthz, /readyz and /metrics\n"
