"""The gateway: a process of its own that relays sealed frames and cannot open them.

It admits a connection by a short-lived ticket, pairs a silo's with its worker's, and hands frames on one by
one, so that a slow receiver stalls its sender and nobody's memory. It knows the control plane's public key
and asks it for standings; it reads no database.
"""

from backend.gateway.app import RELAY_PATH, Gateway
from backend.gateway.http_feed import (
    HttpFeed,
    SeatDocument,
    StandingDocument,
    StandingsAnswer,
    StandingsQuestion,
)
from backend.gateway.process import main, run_gateway
from backend.gateway.refusal import Refusal
from backend.gateway.settings import GatewaySettings
from backend.gateway.standings import Feed, FeedError, Standing
from backend.gateway.tickets import (
    Conversation,
    KeyVerifier,
    Role,
    Seat,
    Ticket,
    TicketVerifier,
    issue_ticket,
)

__all__ = [
    "RELAY_PATH",
    "Conversation",
    "Feed",
    "FeedError",
    "Gateway",
    "GatewaySettings",
    "HttpFeed",
    "KeyVerifier",
    "Refusal",
    "Role",
    "Seat",
    "SeatDocument",
    "Standing",
    "StandingDocument",
    "StandingsAnswer",
    "StandingsQuestion",
    "Ticket",
    "TicketVerifier",
    "issue_ticket",
    "main",
    "run_gateway",
]
