"""Channels that notices go to; for admins, since a URL may be a secret of its receiver."""

from typing import Annotated

from fastapi import APIRouter, Query, status

from backend.auth.callers import Admin
from backend.db.models import ChannelKind
from backend.errors import SIGNED_IN, NotFoundError, documented
from backend.notices import service
from backend.notices.errors import (
    ChannelNameTakenError,
    MailOffError,
    TargetRefusedError,
    TooManyChannelsError,
)
from backend.notices.schemas import ChannelAnswer, CreateChannelBody, CreatedChannelAnswer, NoticeAnswer
from backend.paging import cursor_text, parse_cursor
from backend.parameters import After, PathName
from backend.schemas import Page
from backend.server import ServerDep

router = APIRouter(prefix="/notice-channels", tags=["notices"])


@router.get("", responses=documented(*SIGNED_IN))
def list_notice_channels(
    server: ServerDep, caller: Admin, after: Annotated[str, Query(max_length=64)] = ""
) -> Page[ChannelAnswer]:
    """List your organisation's channels by name."""
    limit = server.settings.max_page
    with server.database.read() as session:
        rows = [row for row in service.channels_of(session, caller.organization_id) if row.name > after]
    items = [service.show_channel(row) for row in rows[:limit]]
    return Page(items=items, next=items[-1].name if len(rows) > limit else None)


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    responses=documented(
        *SIGNED_IN, ChannelNameTakenError, TooManyChannelsError, TargetRefusedError, MailOffError
    ),
)
def add_notice_channel(server: ServerDep, caller: Admin, body: CreateChannelBody) -> CreatedChannelAnswer:
    """Have notices sent to an e-mail address or a URL; a webhook's secret is shown this once."""
    with server.database.write() as session:
        row = service.add_channel(session, server, caller, body)
    shown = service.show_channel(row)
    secret = row.secret.hex() if body.kind is ChannelKind.WEBHOOK else None
    return CreatedChannelAnswer(secret=secret, **shown.model_dump())


@router.delete(
    "/{name}", status_code=status.HTTP_204_NO_CONTENT, responses=documented(*SIGNED_IN, NotFoundError)
)
def remove_notice_channel(server: ServerDep, caller: Admin, name: PathName) -> None:
    """Remove a channel, and what was to go there."""
    with server.database.write() as session:
        service.remove_channel(session, server, caller, name)


@router.post(
    "/{name}/test",
    status_code=status.HTTP_202_ACCEPTED,
    responses=documented(*SIGNED_IN, NotFoundError),
)
def try_notice_channel(server: ServerDep, caller: Admin, name: PathName) -> NoticeAnswer:
    """Send a test; what became of it is in the channel's list of notices."""
    with server.database.write() as session:
        notice = service.send_test(session, server, caller, name)
        return service.show_notice(notice, service.find_channel(session, caller, name))


@router.get("/{name}/notices", responses=documented(*SIGNED_IN, NotFoundError))
def list_notices(server: ServerDep, caller: Admin, name: PathName, after: After = None) -> Page[NoticeAnswer]:
    """List what a channel was told in the last 30 days, oldest first, and whether it arrived."""
    limit, cursor = server.settings.max_page, parse_cursor(after)
    with server.database.read() as session:
        channel = service.find_channel(session, caller, name)
        rows = service.notices_of(session, channel, after=cursor, limit=limit + 1)
        items = [service.show_notice(row, channel) for row in rows[:limit]]
    last = items[-1] if len(rows) > limit else None
    return Page(items=items, next=last and cursor_text(last.created_at, last.id))
