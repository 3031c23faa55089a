"""Sends what lies in the outbox, again until it arrives; finds out what waits too long."""

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

import structlog
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from backend.db.absence import log_failed_look
from backend.db.base import MAX_TEXT, storable
from backend.db.models import Approval, ChannelKind, Job, JobSilo, JobState, Notice, NoticeChannel, Silo
from backend.notices import email, webhook
from backend.notices.errors import DeliveryError
from backend.notices.outbox import Topic, Word, tell
from backend.parties.expiry import warn_of_ends
from backend.server import Server

FIRST_PAUSE: Final = timedelta(seconds=30)
LONGEST_PAUSE: Final = timedelta(hours=1)
GIVEN_UP_AFTER: Final = timedelta(days=3)
KEPT: Final = timedelta(days=30)
_MAX_DOUBLINGS: Final = 16
_BATCH: Final = 20
_LOOK_SECONDS: Final = 1.0
_SHORTEST_PAUSE_SECONDS: Final = 0.2
_SEARCH_SECONDS: Final = 60.0
_log = structlog.get_logger("backend.notices")


class Postman:
    """A thread that sends notices; a host that is slow delays other notices only.

    Args:
        server: The control plane's world.
        may_work: Asked before each look: whether this process is the one that sends.
    """

    def __init__(self, server: Server, *, may_work: Callable[[], bool] = lambda: True) -> None:
        self._server, self._may_work = server, may_work
        self._changed = server.bus.thread_listener()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="postman", daemon=True)
        self._search_at = time.monotonic()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Stop; what is being sent may be sent once more after the next start."""
        self._stopped.set()
        self._changed.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._changed.clear()
            try:
                if self._may_work():
                    self._search()
                    while send_due(self._server) and not self._stopped.is_set():
                        pass
            except Exception as error:  # noqa: BLE001 - a bug in one look must not end all that follow
                log_failed_look(_log, "sending_notices_failed", error)
            self._stopped.wait(_SHORTEST_PAUSE_SECONDS)  # a burst of commits is one look
            self._changed.wait(_LOOK_SECONDS)

    def _search(self) -> None:
        if time.monotonic() < self._search_at:
            return
        self._search_at = time.monotonic() + _SEARCH_SECONDS
        search(self._server)


def search(server: Server) -> None:
    """Tell of approvals that are awaited for long, and of certificates that end; forget old notices."""
    now = server.now()
    with server.database.write(quietly=True) as session:
        _tell_of_approvals(session, now=now, minutes=server.settings.notice_approval_minutes)
        warn_of_ends(session, now=now)
        session.execute(delete(Notice).where(Notice.created_at < now - KEPT))


def send_due(server: Server) -> int:
    """Try what is due; return how many were tried. Nothing is locked meanwhile."""
    with server.database.read() as session:
        due = _due(session, now=server.now())
    for notice, channel in due:
        try:
            _deliver(server, notice, channel)
            error = None
        except DeliveryError as failure:
            error = failure.reason
        except Exception:  # noqa: BLE001 - one that cannot be sent must not keep all others back
            _log.exception("notice_broke", notice=str(notice.id))
            error = "an error of the server's own; its log has the details"
        with server.database.write(quietly=True) as session:
            _note(session, notice.id, error, now=server.now())
        _log.info("notice_sent" if error is None else "notice_not_sent", topic=notice.topic, reason=error)
    return len(due)


def pause_after(attempts: int) -> timedelta:
    """Return how long to wait after so many tries: doubling, up to an hour."""
    return min(FIRST_PAUSE * (1 << min(attempts - 1, _MAX_DOUBLINGS)), LONGEST_PAUSE)


def _due(session: Session, *, now: datetime) -> Sequence[tuple[Notice, NoticeChannel]]:
    query = (
        select(Notice, NoticeChannel)
        .join(NoticeChannel, Notice.channel_id == NoticeChannel.id)
        .where(Notice.due_at <= now)
        .order_by(Notice.due_at)
        .limit(_BATCH)
    )
    return [(notice, channel) for notice, channel in session.execute(query)]


def _deliver(server: Server, notice: Notice, channel: NoticeChannel) -> None:
    settings, now = server.settings, server.now()
    if channel.kind == ChannelKind.EMAIL:
        email.send(
            settings,
            channel.target,
            notice_id=str(notice.id),
            subject=notice.subject,
            text=_letter(notice, settings.audience),
            now=now,
        )
        return
    content = {"id": str(notice.id), "at": notice.created_at.isoformat(), **notice.body}
    webhook.post(
        channel.target,
        content,
        secret=channel.secret,
        now=now,
        timeout_seconds=settings.notice_seconds,
        allow_private=settings.webhook_private,
    )


def _letter(notice: Notice, audience: str) -> str:
    facts = "\n".join(f"{name}: {value}" for name, value in notice.body["facts"].items())
    return f"{notice.subject}.\n\n{facts}\n\nNext: {notice.body['next']}\n\n{audience}\n"


def _note(session: Session, notice_id: uuid.UUID, error: str | None, *, now: datetime) -> None:
    row = session.get(Notice, notice_id, with_for_update=True)
    if row is None:  # its channel was removed meanwhile
        return
    row.attempts += 1
    row.error = storable(error or "", MAX_TEXT)
    if error is None:
        row.delivered_at, row.due_at = now, None
    else:
        row.due_at = None if now - row.created_at >= GIVEN_UP_AFTER else now + pause_after(row.attempts)


def _tell_of_approvals(session: Session, *, now: datetime, minutes: int) -> None:
    query = (
        select(Job, Silo)
        .join(JobSilo, JobSilo.job_id == Job.id)
        .join(Silo, Silo.id == JobSilo.silo_id)
        .where(
            Job.state == JobState.AWAITING_APPROVAL,
            Job.state_since <= now - timedelta(minutes=minutes),
            JobSilo.approval == Approval.WAITING,
        )
        .order_by(Job.created_at, JobSilo.position)
    )
    for job, silo in session.execute(query).all():
        word = Word(
            Topic.APPROVAL_AWAITED,
            key=f"approval {job.id} {silo.id}",
            subject=f"Job {job.name} waits for the word of silo {silo.name}",
            facts={"job": str(job.id), "name": job.name, "silo": silo.name, "submitted_by": job.submitted_by},
            next="at the silo: see that its agent runs, and what it says of the job",
        )
        tell(session, word, organization_id=silo.organization_id, now=now)
