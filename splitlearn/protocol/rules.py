"""One side's view of the conversation: what may be said now, and where in the job it stands."""

from splitlearn.errors import LocalProtocolError, ProtocolError
from splitlearn.protocol.delivery import Position
from splitlearn.protocol.errors import IllegalMessageError, WrongStepError
from splitlearn.protocol.generation import GenerationLedger
from splitlearn.protocol.ledger import StepLedger
from splitlearn.protocol.states import LATE_MESSAGES, State, Table, next_state
from splitlearn.wire import (
    Activations,
    CachedHidden,
    CacheEnd,
    CacheRefused,
    Decode,
    Direction,
    GradActivations,
    GradHidden,
    Hidden,
    Message,
    Phase,
    Prefill,
    Ready,
    RoundEnd,
    RoundSaved,
    StepVoid,
    SumMessage,
    SumStart,
    TrunkMessage,
    TurnEnd,
    TurnResult,
    TurnStart,
)


class Rules:
    """Follows every message, sent or opened, and refuses the illegal ones.

    Args:
        table: The side's transition table.
        sends: The direction this side sends in.
    """

    def __init__(self, table: Table, *, sends: Direction) -> None:
        self.state = State.JOINING
        self._table = table
        self._sends = sends
        self._ledger: StepLedger | GenerationLedger | None = None
        self._phase: Phase | None = None
        self._saving_round = 0
        self._summing_round = 0

    @property
    def phase(self) -> Phase | None:
        """The phase of the current turn, or of the last one of this round; None between rounds."""
        return self._phase

    def send(self, message: Message) -> Position:
        """Note a message of ours and return its place.

        Raises:
            LocalProtocolError: It may not be sent now.
        """
        if isinstance(message, TrunkMessage) is (self._sends is Direction.SILO_TO_TRUNK):
            raise LocalProtocolError(f"{type(message).__name__} is the other side's message")
        position = self._position(message)
        try:
            self._follow(message, position)
        except ProtocolError as error:
            raise LocalProtocolError(error.message) from error
        if isinstance(message, StepVoid):
            self._turn.expect_restart()
        return position

    def receive(self, message: Message, position: Position) -> bool:
        """Note a message of the peer; False if it is to be dropped because it crossed one of ours.

        Raises:
            ProtocolError: The peer may not send it now, or not at this place.
        """
        if self.state is State.ENDED and isinstance(message, LATE_MESSAGES):
            return False
        if self.state is State.OVER and isinstance(message, TrunkMessage):  # on its way when the silo left
            return False
        if self._is_stale(message):
            return False
        self._follow(message, position)
        return True

    def _follow(self, message: Message, position: Position) -> None:
        state = next_state(self._table, self.state, message)
        if state is None:
            raise IllegalMessageError(f"{type(message).__name__} has no place in state {self.state.value!r}")
        expected = self._position(message)
        if position != expected:
            raise WrongStepError(
                f"{type(message).__name__} is placed at round {position.round} step {position.step}, "
                f"the conversation is at round {expected.round} step {expected.step}"
            )
        self._record(message)
        self.state = state

    def _refuse_early_end(self) -> None:
        assert self._ledger is not None, "every turn has its ledger"
        if not self._ledger.is_complete:
            raise IllegalMessageError(f"the turn ended at step {self._ledger.step}, before its last")

    def _is_stale(self, message: Message) -> bool:
        in_steps = isinstance(self._ledger, StepLedger)
        return in_steps and isinstance(message, Activations) and self._turn.is_stale(message)

    def _record(self, message: Message) -> None:
        match message:
            case TurnStart():
                generates = message.phase is Phase.GENERATE
                self._ledger = GenerationLedger(message) if generates else StepLedger(message)
                self._phase = message.phase
            case Activations() | Hidden() | GradHidden() | GradActivations():
                self._turn.record(message, step=self._turn.step)
            case StepVoid():
                self._turn.void(message.step)
            case Prefill() | Decode() | CacheEnd() | CachedHidden() | CacheRefused():
                self._caches.record(message)
            case TurnEnd():
                self._refuse_early_end()
            case SumStart():
                self._summing_round = message.round
                self._phase = self._phase or Phase.TRAIN  # also where replicas meet, and no turn was before
            case RoundEnd():
                self._saving_round = message.round
                self._phase = None
            case _:
                pass

    def _position(self, message: Message) -> Position:
        match message:
            case Ready():
                return Position(round=message.last_round)
            case TurnStart():
                return Position(round=message.round, step=message.first_step)
            case (
                Activations()
                | Hidden()
                | GradHidden()
                | GradActivations()
                | StepVoid()
                | TurnEnd()
                | TurnResult()
                | Prefill()
                | Decode()
                | CacheEnd()
                | CachedHidden()
                | CacheRefused()
            ):
                return self._current_position()
            case RoundEnd() | SumStart():
                return Position(round=message.round)
            case RoundSaved():
                return Position(round=self._saving_round)
            case _:
                return Position(round=self._summing_round if isinstance(message, SumMessage) else 0)

    def _current_position(self) -> Position:
        if self._ledger is None:
            return Position()
        return Position(round=self._ledger.turn.round, step=self._ledger.step)

    @property
    def _turn(self) -> StepLedger:
        # The tables let a message of a turn through only inside one, and every turn has its ledger.
        assert isinstance(self._ledger, StepLedger)
        return self._ledger

    @property
    def _caches(self) -> GenerationLedger:
        assert isinstance(self._ledger, GenerationLedger)  # likewise
        return self._ledger
