"""The sealed session: frames of one connection, in order, each exactly once."""

from typing import NoReturn

from cryptography.utils import Buffer

from splitlearn.channel.errors import (
    ClosedSessionError,
    OversizedFragmentError,
    ReorderedFrameError,
    RepeatedFrameError,
    TamperedFrameError,
    TruncatedFrameError,
    UnexpectedKindError,
    WrongDirectionError,
)
from splitlearn.channel.framing import refuse_other_job
from splitlearn.channel.terms import Terms
from splitlearn.channel.traffic import TrafficKey
from splitlearn.errors import ChannelError, LocalProtocolError
from splitlearn.wire import ENVELOPE_BYTES, TAG_BYTES, Direction, Envelope, Frame, Kind, job_tag


class SealedSession:
    """Seals what we send and opens what the peer sends, over one connection.

    Made by a finished handshake, never by hand. The first refusal closes it, and every later call
    raises :class:`ClosedSessionError`; go on with a new connection and a new handshake. One thread may
    seal while another opens; neither method may run twice at a time.

    Args:
        terms: What the handshake agreed on.
        sending: The direction of what we seal.
        seal_key: The key of that direction.
        open_key: The key of the other.
    """

    __slots__ = ("_closed", "_job_tag", "_open_key", "_seal_key", "_sending", "_terms")

    def __init__(
        self, terms: Terms, *, sending: Direction, seal_key: TrafficKey, open_key: TrafficKey
    ) -> None:
        self._terms = terms
        self._job_tag = job_tag(terms.job_id)
        self._sending = sending
        self._seal_key = seal_key
        self._open_key = open_key
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether the keys are gone."""
        return self._closed

    @property
    def terms(self) -> Terms:
        """What the handshake agreed on."""
        return self._terms

    @property
    def sending(self) -> Direction:
        """The direction of what this side seals."""
        return self._sending

    def seal(
        self,
        plaintext: Buffer,
        *,
        round_number: int,
        step: int,
        message_seq: int,
        fragment_offset: int = 0,
        message_bytes: int | None = None,
    ) -> bytearray:
        """Return the next frame, whole: envelope, ciphertext, tag.

        Args:
            plaintext: One fragment of an encoded message; may be a slice (memoryview) of it.
            round_number: Round that the message belongs to.
            step: Global step that the message belongs to.
            message_seq: Number of the message in this job and direction.
            fragment_offset: Where the fragment begins in the message, in bytes.
            message_bytes: Bytes of the whole message; the fragment's own when left out.

        Raises:
            ClosedSessionError: The session is closed.
            LocalProtocolError: A number does not fit the envelope, or the fragment not the message.
        """
        frame = bytearray(ENVELOPE_BYTES + memoryview(plaintext).nbytes + TAG_BYTES)
        self.seal_into(
            plaintext,
            frame,
            round_number=round_number,
            step=step,
            message_seq=message_seq,
            fragment_offset=fragment_offset,
            message_bytes=message_bytes,
        )
        return frame

    def seal_into(
        self,
        plaintext: Buffer,
        frame: Buffer,
        *,
        round_number: int,
        step: int,
        message_seq: int,
        fragment_offset: int = 0,
        message_bytes: int | None = None,
    ) -> int:
        """Write the next frame into a buffer of the caller, who may use it again once it is sent.

        Args:
            plaintext: As for :meth:`seal`; must not overlap ``frame``.
            frame: Writable, at least 80 bytes longer than the plaintext.
            round_number: As for :meth:`seal`.
            step: As for :meth:`seal`.
            message_seq: As for :meth:`seal`.
            fragment_offset: As for :meth:`seal`.
            message_bytes: As for :meth:`seal`.

        Returns:
            Bytes of the frame.

        Raises:
            ClosedSessionError: The session is closed.
            LocalProtocolError: The buffer is too short, a number does not fit the envelope, or the
                fragment not the message.
        """
        self._require_open()
        length = memoryview(plaintext).nbytes
        total = length if message_bytes is None else message_bytes
        if fragment_offset + length > total:
            raise LocalProtocolError(
                f"fragment {fragment_offset}+{length} exceeds its message of {total} bytes"
            )
        header = Envelope(
            kind=Kind.SEALED,
            direction=self._sending,
            replica=self._terms.replica,
            body_bytes=length + TAG_BYTES,
            epoch=self._terms.epoch,
            job_tag=self._job_tag,
            round=round_number,
            step=step,
            counter=self._seal_key.counter,
            message_seq=message_seq,
            fragment_offset=fragment_offset,
            message_bytes=total,
        ).pack()
        whole = _writable(frame, ENVELOPE_BYTES + length + TAG_BYTES)
        whole[:ENVELOPE_BYTES] = header
        self._seal_key.seal_into(plaintext, header=header, out=whole[ENVELOPE_BYTES:])
        return len(whole)

    def open_into(self, frame: Frame, out: Buffer) -> int:
        """Open the next frame into a buffer of the caller. Afterwards ``frame.envelope`` is authentic.

        Args:
            frame: As received, whole.
            out: Writable, at least ``frame.envelope.body_bytes - 16`` long: the place of this fragment
                in the message's buffer.

        Returns:
            Bytes written: the fragment's length.

        Raises:
            ChannelError: The frame is refused and the session closed; the subclass says why. Of ``out``
                nothing may be used.
            LocalProtocolError: ``out`` is too short; our fault, and the session stays open.
        """
        self._require_open()
        try:
            self._check(frame)
        except ChannelError as error:
            self._refuse(error)
        length = len(frame.body) - TAG_BYTES
        place = _writable(out, length)
        if not self._open_key.open_into(frame.body, header=frame.header, out=place):
            self._refuse(
                TamperedFrameError(
                    f"frame {frame.envelope.counter} does not open: it was changed on the way, or sealed "
                    "for another session"
                )
            )
        return length

    def open(self, frame: Frame) -> bytearray:
        """Open the next frame and return its plaintext; see :meth:`open_into`.

        Raises:
            ChannelError: The frame is refused and the session closed.
        """
        out = bytearray(max(len(frame.body) - TAG_BYTES, 0))
        self.open_into(frame, out)
        return out

    def close(self) -> None:
        """Drop the keys. May be called twice."""
        self._closed = True
        self._seal_key.drop()
        self._open_key.drop()

    def _require_open(self) -> None:
        if self._closed:
            raise ClosedSessionError("the session is closed; connect again with a new handshake")

    def _refuse(self, error: ChannelError) -> NoReturn:
        self.close()
        raise error

    def _check(self, frame: Frame) -> None:
        envelope = frame.envelope
        if envelope.kind is not Kind.SEALED:
            raise UnexpectedKindError(f"a {envelope.kind.name.lower()} came inside a session")
        if envelope.direction is self._sending:
            raise WrongDirectionError(f"frame {envelope.counter} travels {envelope.direction.name.lower()}")
        refuse_other_job(envelope, self._terms)
        _check_counter(envelope.counter, due=self._open_key.counter)
        _check_length(envelope, len(frame.body))

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return (
            f"SealedSession({self._sending.name.lower()}, {state}, sealed={self._seal_key.counter}, "
            f"opened={self._open_key.counter})"
        )


def _check_counter(counter: int, *, due: int) -> None:
    if counter < due:
        raise RepeatedFrameError(f"frame {counter} came again; {due} is due")
    if counter > due:
        raise ReorderedFrameError(f"frame {counter} came; {due} is due: one before it is lost or late")


def _check_length(envelope: Envelope, body_bytes: int) -> None:
    if body_bytes != envelope.body_bytes or body_bytes < TAG_BYTES:
        raise TruncatedFrameError(
            f"frame {envelope.counter} has a body of {body_bytes} bytes, announced were {envelope.body_bytes}"
        )
    end = envelope.fragment_offset + body_bytes - TAG_BYTES
    if end > envelope.message_bytes:
        raise OversizedFragmentError(
            f"frame {envelope.counter} reaches to {end} in a message of {envelope.message_bytes} bytes"
        )


def _writable(buffer: Buffer, length: int) -> memoryview:
    view = memoryview(buffer).cast("B")
    if view.readonly or len(view) < length:
        raise LocalProtocolError(f"a writable buffer of {length} bytes is needed, not one of {len(view)}")
    return view[:length]
