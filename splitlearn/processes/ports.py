"""Ports to listen on, looked at before a child process is told to."""

import socket

from splitlearn.errors import LinkError


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port on which nobody listens now."""
    with _bound(host, 0) as listener:
        port: int = listener.getsockname()[1]
        return port


def refuse_used_port(host: str, port: int, *, flag: str) -> None:
    """Refuse a port that cannot be listened on.

    Args:
        host: Address to listen on.
        port: The port.
        flag: How the user chooses another.

    Raises:
        LinkError: Names address, port and reason.
    """
    try:
        _bound(host, port).close()
    except OSError as error:
        raise LinkError(
            f"cannot listen on {host}:{port}: {error.strerror}; end what uses it, or choose another ({flag})"
        ) from error


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener
