"""This machine's own addresses never go through a proxy, whatever the environment says of proxies."""

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

_HOSTS = ("localhost", "127.0.0.1", "[::1]")

UNPROXIED: Mapping[str, Any] = dict.fromkeys((f"all://{host}" for host in _HOSTS), None)
"""The ``mounts`` of an HTTP client: the environment's proxies, but none for this machine."""


def proxy_for(url: str) -> Literal[True] | None:
    """Return the ``proxy`` argument of a websocket: None for none, True for the environment's."""
    host = urlsplit(url).hostname
    return None if host in {name.strip("[]") for name in _HOSTS} else True
