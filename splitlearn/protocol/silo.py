"""The silo's side of a conversation; it opens every handshake."""

from collections.abc import Collection
from datetime import datetime

from splitlearn.channel import Entropy, SeenHandshakes, SiloHandshake, Terms, UnexpectedKindError
from splitlearn.errors import LocalProtocolError
from splitlearn.identity import Identity, TrustStore
from splitlearn.protocol.conversation import DEFAULT_WINDOW, SERVED_PHASES, Conversation
from splitlearn.protocol.errors import PhaseRefusedError
from splitlearn.protocol.rules import Rules
from splitlearn.protocol.states import SILO_TABLE
from splitlearn.wire import Codec, Direction, Frame, Kind, Limits, Message, Phase, TurnStart


class SiloProtocol(Conversation):
    """One silo talking with the trunk's worker.

    Args:
        terms: What both sides were told beforehand; any difference is refused.
        identity: The silo's certificate and key.
        trust: Who is believed.
        codec: How both sides encode tensors.
        limits: What is accepted of the worker.
        window: Messages that may be on their way unopened, per direction.
        served_phases: Phases whose turns this silo takes; a turn of another is refused.
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
        sends = Direction.SILO_TO_TRUNK
        super().__init__(
            rules=Rules(SILO_TABLE, sends=sends), sends=sends, codec=codec, limits=limits, window=window
        )
        self.terms = terms
        self._identity = identity
        self._trust = trust
        self._served_phases = frozenset(served_phases)
        self._entropy = entropy
        self._seen = SeenHandshakes()
        self._handshake: SiloHandshake | None = None

    def _begin_handshake(self, now: datetime) -> None:
        self._handshake = SiloHandshake(
            self.terms,
            identity=self._identity,
            trust=self._trust,
            resume=self._resume_point(),
            now=now,
            seen=self._seen,
            entropy=self._entropy,
        )
        self._outgoing.append(self._handshake.hello())

    def _receive_handshake(self, frame: Frame) -> None:
        if self._handshake is None:
            raise LocalProtocolError("bytes were received before connection_made")
        if self._session is not None or frame.envelope.kind is not Kind.REPLY:
            raise UnexpectedKindError(f"a handshake frame {frame.envelope.kind.name} in the wrong place")
        self._outgoing.append(self._handshake.receive_reply(frame))
        self._establish(self._handshake.established())

    def _on_received(self, message: Message) -> None:
        """Refuse what this silo does not serve; else nothing is answered without the silo's program."""
        if isinstance(message, TurnStart) and message.phase not in self._served_phases:
            served = ", ".join(sorted(phase.name.lower() for phase in self._served_phases))
            raise PhaseRefusedError(
                f"{self.terms.worker_name} began a turn of phase {message.phase.name.lower()}; silo "
                f"{self.terms.silo_name!r} serves {served}"
            )
