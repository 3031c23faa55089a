"""Carry opaque frames between two parties: one interface, several transports.

A link knows nothing of what it carries. It keeps order and boundaries, holds back a sender whose
receiver is slow, and turns every way of breaking into :class:`~splitlearn.errors.LinkError`.
"""

from splitlearn.link.interface import Accept, Connect, Link
from splitlearn.link.memory import MemoryLink, MemorySwitchboard, memory_pair
from splitlearn.link.websocket import WebsocketLink, WebsocketListener, connect_websocket

__all__ = [
    "Accept",
    "Connect",
    "Link",
    "MemoryLink",
    "MemorySwitchboard",
    "WebsocketLink",
    "WebsocketListener",
    "connect_websocket",
    "memory_pair",
]
