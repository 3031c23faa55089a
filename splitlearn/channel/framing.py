"""Handshake messages as frames: the envelope written, and the received one compared with what is due."""

from splitlearn.channel.errors import (
    MalformedHandshakeError,
    ReflectedMessageError,
    UnexpectedKindError,
    WrongJobError,
)
from splitlearn.channel.messages import MAX_HANDSHAKE_BODY_BYTES
from splitlearn.channel.terms import Terms, refuse_other_epoch, refuse_other_replica
from splitlearn.wire import Direction, Envelope, Frame, Kind, job_tag


def handshake_header(kind: Kind, direction: Direction, terms: Terms, *, body_bytes: int) -> bytes:
    """Return the 64 envelope bytes of a handshake message; every field of sealed frames is 0."""
    envelope = Envelope(
        kind=kind,
        direction=direction,
        replica=terms.replica,
        body_bytes=body_bytes,
        epoch=terms.epoch,
        job_tag=job_tag(terms.job_id),
    )
    return envelope.pack()


def handshake_body(frame: Frame, *, kind: Kind, direction: Direction, terms: Terms) -> bytes:
    """Return the body of a received handshake message whose envelope is the one due now.

    Args:
        frame: As received.
        kind: Which message is due.
        direction: Which way it must travel.
        terms: Ours.

    Raises:
        ChannelError: It is another message, reflected, of another job, replica or epoch, or malformed.
    """
    envelope = frame.envelope
    if envelope.direction is not direction:
        raise ReflectedMessageError(
            f"a {envelope.kind.name.lower()} travels {envelope.direction.name.lower()}: our own came back"
        )
    if envelope.kind is not kind:
        raise UnexpectedKindError(
            f"a {envelope.kind.name.lower()} came where a {kind.name.lower()} is due; open a new connection"
        )
    refuse_other_job(envelope, terms)
    body = bytes(frame.body[:MAX_HANDSHAKE_BODY_BYTES])
    if bytes(frame.header) != handshake_header(kind, direction, terms, body_bytes=len(body)):
        raise MalformedHandshakeError(
            f"a handshake body of {len(frame.body)} bytes, announced as {envelope.body_bytes}, is above "
            f"the limit of {MAX_HANDSHAKE_BODY_BYTES}, or its envelope has fields of sealed frames"
        )
    return body


def refuse_other_job(envelope: Envelope, terms: Terms) -> None:
    """Compare an envelope with our terms.

    Raises:
        WrongJobError, WrongReplicaError, StaleEpochError, SupersededError: They differ.
    """
    if envelope.job_tag != job_tag(terms.job_id):
        raise WrongJobError(f"a frame of another job came; this session is for job {terms.job_id!r}")
    refuse_other_replica(ours=terms.replica, theirs=envelope.replica)
    refuse_other_epoch(ours=terms.epoch, theirs=envelope.epoch)
