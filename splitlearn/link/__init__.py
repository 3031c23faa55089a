"""Carry opaque frames between two parties: one interface, several transports.

A link knows nothing of what it carries. It keeps order and boundaries, holds back a sender whose
receiver is slow, and turns every way of breaking into :class:`~splitlearn.errors.LinkError`.
"""

from splitlearn.link.closing import CloseReason, GatewayClosedError
from splitlearn.link.gateway import PAIRED, GatewayLink, connect_gateway
from splitlearn.link.interface import Accept, Connect, Link
from splitlearn.link.keepalive import LIBRARY_LOGGER, WatchedConnection
from splitlearn.link.memory import MemoryLink, MemorySwitchboard, memory_pair
from splitlearn.link.websocket import WebsocketLink, WebsocketListener, connect_websocket

__all__ = [
    "LIBRARY_LOGGER",
    "PAIRED",
    "Accept",
    "CloseReason",
    "Connect",
    "GatewayClosedError",
    "GatewayLink",
    "Link",
    "MemoryLink",
    "MemorySwitchboard",
    "WatchedConnection",
    "WebsocketLink",
    "WebsocketListener",
    "connect_gateway",
    "connect_websocket",
    "memory_pair",
]
