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
from backend.tickets.meetings import is_sign_due, note_sign
from splitlearn.control_plane.schemas import TicketAnswer, TicketBody

router = APIRouter(tags=["gateway"])
_gateway = HTTPBearer(auto_error=False, scheme_name="GatewayToken", description="TRUNKLINE_STANDINGS_TOKEN")


@router.post("/tickets", responses=documented(*SIGNED_IN, SessionEndedError, UnknownJobError, LeaseLostError))
def get_ticket(server: ServerDep, caller: Party, body: TicketBody) -> TicketAnswer:
    """Get leave to open one connection at the gateway, on your own side."""
    now = server.now()
    with server.database.read() as session:
        answer = service.give_ticket(
            session, server.settings, body, caller=caller, now=now, may_arrange=False
        )
    if answer is None:
        with server.database.write() as session:
            answer = service.give_ticket(
                session, server.settings, body, caller=caller, now=now, may_arrange=True
            )
    assert answer is not None, "what may be arranged is"
    return answer


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
    url, now = body.gateway, server.now()
    with server.database.read() as session:
        answer = StandingsAnswer(standings=service.standings(session, body.seats, now=now), now=now)
        is_due = url is not None and is_sign_due(session, server.settings, url, now=now)
    if is_due and url is not None:
        with server.database.write(quietly=True) as session:
            note_sign(session, url, now=now)
    return answer
