"""Run one conversation over links: connect, pump, reconnect; nothing that a broken link can lose."""

from splitlearn.exchange.exchange import Exchange, PeerAwayError
from splitlearn.exchange.traffic import Traffic

__all__ = ["Exchange", "PeerAwayError", "Traffic"]
