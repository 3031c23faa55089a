"""Tickets for parties, standings for gateways."""

import secrets
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from backend.auth.callers import Party
from backend.errors import EVERYWHERE, SIGNED_IN, NotSignedInError, documented
from backend.gateway import StandingsAnswer, StandingsQuestion
from backend.jobs.errors import LeaseLostError, UnknownJobError
from backend.parties.errors import SessionEndedError
from backend.server import ServerDep
from backend.tickets import service
from splitlearn.control_plane.schemas import TicketAnswer, TicketBody

router = APIRouter(tags=["gateway"])
_gateway = HTTPBearer(auto_error=False, scheme_name="GatewayToken", description="TRUNKLINE_STANDINGS_TOKEN")


@router.post("/tickets", responses=documented(*SIGNED_IN, SessionEndedError, UnknownJobError, LeaseLostError))
def get_ticket(server: ServerDep, caller: Party, body: TicketBody) -> TicketAnswer:
    """Get leave to open one connection at the gateway, on your own side."""
    with server.database.read() as session:
        return service.give_ticket(session, server.settings, body, caller=caller, now=server.now())


@router.post("/standings", responses=documented(*EVERYWHERE, NotSignedInError))
def ask_standings(
    server: ServerDep,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_gateway)],
    body: StandingsQuestion,
) -> StandingsAnswer:
    """Ask which epochs are current; for gateways, with the token that both were given."""
    expected = server.settings.standings_token
    given = credentials.credentials if credentials else ""
    if expected is None or not secrets.compare_digest(given.encode(), expected.get_secret_value().encode()):
        raise NotSignedInError("the gateway's token is missing, or not TRUNKLINE_STANDINGS_TOKEN")
    with server.database.read() as session:
        return StandingsAnswer(standings=service.standings(session, body.seats))
