"""The trunk worker's side of a conversation with one silo; it answers handshakes and leads the job."""

from collections.abc import Collection
from datetime import datetime

from splitlearn.channel import Entropy, SeenHandshakes, Terms, TrunkHandshake, UnexpectedKindError
from splitlearn.errors import LocalProtocolError
from splitlearn.identity import Identity, TrustStore
from splitlearn.protocol.conversation import DEFAULT_WINDOW, SERVED_PHASES, Conversation
from splitlearn.protocol.errors import WindowExceededError
from splitlearn.protocol.rules import Rules
from splitlearn.protocol.states import TRUNK_TABLE
from splitlearn.wire import (
    Codec,
    Direction,
    Frame,
    Kind,
    Limits,
    Message,
    Phase,
    Refusal,
    RefusalCode,
    TurnRequest,
)


class TrunkProtocol(Conversation):
    """The worker talking with one silo; one object per silo of the roster.

    Args:
        terms: What both sides were told beforehand; any difference is refused.
        identity: The worker's certificate and key.
        trust: Who is believed.
        codec: How both sides encode tensors.
        limits: What is accepted of the silo.
        window: Messages that may be on their way unopened, per direction.
        served_phases: Phases that a silo may ask for; another is answered with a typed refusal.
        entropy: Source of the handshake's randomness; None for the system's.
    """

    def __init__(
        self,
        terms: Terms,
        *,
        identity: Identity,
        trust: TrustStore,
        codec: Codec,
        limits: Limits | None = None,
        window: int = DEFAULT_WINDOW,
        served_phases: Collection[Phase] = SERVED_PHASES,
        entropy: Entropy | None = None,
    ) -> None:
        sends = Direction.TRUNK_TO_SILO
        super().__init__(
            rules=Rules(TRUNK_TABLE, sends=sends), sends=sends, codec=codec, limits=limits, window=window
        )
        self.terms = terms
        self._identity = identity
        self._trust = trust
        self._served_phases = frozenset(served_phases)
        self._entropy = entropy
        self._seen = SeenHandshakes()
        self._handshake: TrunkHandshake | None = None
        self._due = Kind.HELLO

    def _begin_handshake(self, now: datetime) -> None:
        self._due = Kind.HELLO
        self._handshake = TrunkHandshake(
            self.terms,
            identity=self._identity,
            trust=self._trust,
            resume=self._resume_point(),
            now=now,
            seen=self._seen,
            entropy=self._entropy,
        )

    def _receive_handshake(self, frame: Frame) -> None:
        if self._handshake is None:
            raise LocalProtocolError("bytes were received before connection_made")
        kind = frame.envelope.kind
        if self._session is not None or kind is not self._due:
            raise UnexpectedKindError(f"a handshake frame {kind.name} in the wrong place")
        if kind is Kind.HELLO:
            self._outgoing.append(self._handshake.receive_hello(frame))
            self._due = Kind.CONFIRM
        else:
            self._establish(self._handshake.receive_confirm(frame))

    def _on_received(self, message: Message) -> None:
        if isinstance(message, TurnRequest) and message.phase not in self._served_phases:
            if not self.has_room:
                raise WindowExceededError("the silo keeps asking without taking in the answers")
            self.send(Refusal(code=RefusalCode.UNSERVED_PHASE))
