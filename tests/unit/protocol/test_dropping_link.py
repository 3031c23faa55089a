"""Two sides over a link that loses frames, drops and comes back anywhere: nothing is lost or doubled."""

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from splitlearn.protocol import Conversation, Established, Received, State
from splitlearn.wire import (
    Activations,
    GradActivations,
    GradHidden,
    Hidden,
    Message,
    Outcome,
    PaddingSide,
    Phase,
    Ready,
    TurnEnd,
    TurnResult,
    TurnStart,
)

NUM_MICRO_BATCHES = 3
NUM_STEPS = 2
WINDOW = 8
MakePair = Callable[..., Any]


def outcome(step: int) -> Outcome:
    return Outcome(norms_bottom=(float(step),), norms_trunk=(), norms_top=(), finite=True, num_tokens=1)


def rows(value: float) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.full((2, 230), value, np.float32)


class SiloProgram:
    """What the silo says next, and its record of what it heard."""

    def __init__(self, protocol: Conversation) -> None:
        self.protocol = protocol
        self.said: list[Message] = []
        self.num_sealed = 0
        self.heard: list[Message] = []
        self.due: deque[Message] = deque([Ready(last_round=0, served=frozenset({Phase.TRAIN}))])

    def hear(self, message: Message) -> None:
        self.heard.append(message)
        match message:
            case TurnStart():
                self.due.extend(self._activations(0, m) for m in range(2))
            case Hidden():
                self.due.append(GradHidden(micro_batch=message.micro_batch, loss_sum=1.0, grad=rows(1)))
                if message.micro_batch + 2 < NUM_MICRO_BATCHES:
                    self.due.append(self._activations(self._steps_done(), message.micro_batch + 2))
            case GradActivations(outcome=Outcome()):
                if self._steps_done() < NUM_STEPS:
                    self.due.extend(self._activations(self._steps_done(), m) for m in range(2))
                else:
                    self.due.append(TurnEnd(outcome=outcome(NUM_STEPS), loss_sum=1.0, num_tokens=1))
            case _:
                pass

    def _steps_done(self) -> int:
        return sum(isinstance(m, GradActivations) and m.outcome is not None for m in self.heard)

    @staticmethod
    def _activations(step: int, micro_batch: int) -> Activations:
        return Activations(
            phase=Phase.TRAIN,
            micro_batch=micro_batch,
            num_micro_batches=NUM_MICRO_BATCHES,
            lengths=(2,),
            padding_side=PaddingSide.LEFT,
            num_label_tokens=1,
            outcome=None,
            hidden=rows(10 * step + micro_batch),
        )


class TrunkProgram:
    """What the trunk says next, and its record of what it heard."""

    def __init__(self, protocol: Conversation) -> None:
        self.protocol = protocol
        self.said: list[Message] = []
        self.num_sealed = 0
        self.heard: list[Message] = []
        self.due: deque[Message] = deque()

    def hear(self, message: Message) -> None:
        self.heard.append(message)
        match message:
            case Ready():
                self.due.append(TurnStart(phase=Phase.TRAIN, round=1, first_step=0, num_steps=NUM_STEPS))
            case Activations():
                self.due.append(Hidden(micro_batch=message.micro_batch, hidden=message.hidden))
            case GradHidden():
                is_last = message.micro_batch == NUM_MICRO_BATCHES - 1
                answer = outcome(7) if is_last else None
                self.due.append(
                    GradActivations(micro_batch=message.micro_batch, outcome=answer, grad=message.grad)
                )
            case TurnEnd():
                self.due.append(TurnResult(voided=False))
            case _:
                pass


class DroppingLink(RuleBasedStateMachine):
    make_pair: MakePair

    def __init__(self) -> None:
        super().__init__()
        self.pair = type(self).make_pair(window=WINDOW)
        self.silo, self.trunk = SiloProgram(self.pair.silo), TrunkProgram(self.pair.trunk)
        self.to_trunk: deque[bytes] = deque()
        self.to_silo: deque[bytes] = deque()
        self.connected = False
        self.resent: list[tuple[int, int]] = []

    @rule()
    def connect(self) -> None:
        self._cut()
        self.pair.connect()
        self.connected = True

    @precondition(lambda self: self.connected)
    @rule()
    def drop(self) -> None:
        self._cut()

    @rule(which=st.sampled_from(["silo", "trunk"]))
    def speak(self, which: str) -> None:
        program: SiloProgram | TrunkProgram = getattr(self, which)
        if program.due and program.protocol.has_room:
            message = program.due.popleft()
            program.protocol.send(message)
            program.said.append(message)
            if program.protocol.is_established:
                program.num_sealed = len(program.said)

    @precondition(lambda self: self.connected)
    @rule(which=st.sampled_from(["silo", "trunk"]), count=st.integers(1, 6))
    def carry(self, which: str, count: int) -> None:
        """Carry a few frames towards one side."""
        for _ in range(count):
            self._carry_one(which)

    @invariant()
    def nothing_is_lost_doubled_or_out_of_order(self) -> None:
        assert self.trunk.heard == self.silo.said[: len(self.trunk.heard)]
        assert self.silo.heard == self.trunk.said[: len(self.silo.heard)]

    @invariant()
    def exactly_the_unopened_were_sent_again(self) -> None:
        for unopened, resent in self.resent:
            assert resent == unopened

    @invariant()
    def no_more_than_a_window_is_kept(self) -> None:
        for program in (self.silo, self.trunk):
            assert len(program.protocol._outbox.kept) <= WINDOW

    def teardown(self) -> None:
        """Whatever happened, a link that stays up brings the turn to its end."""
        self.connect()
        for _ in range(400):
            for which in ("silo", "trunk"):
                self.speak(which)
                self.carry(which, 6)
        assert self.silo.protocol.state is State.WAITING
        assert self.trunk.protocol.state is State.WAITING
        self.nothing_is_lost_doubled_or_out_of_order()
        assert len(self.trunk.heard) == 1 + 2 * NUM_STEPS * NUM_MICRO_BATCHES + 1

    def _cut(self) -> None:
        self.pair.drop()
        self.to_trunk.clear()
        self.to_silo.clear()
        self.connected = False

    def _carry_one(self, which: str) -> None:
        self.to_trunk.extend(self.pair.silo.data_to_send())
        self.to_silo.extend(self.pair.trunk.data_to_send())
        queue = self.to_silo if which == "silo" else self.to_trunk
        program, other = (self.silo, self.trunk) if which == "silo" else (self.trunk, self.silo)
        if not queue:
            return
        program.protocol.receive_data(queue.popleft())
        for event in program.protocol.events():
            match event:
                case Received():
                    program.hear(event.message)
                case Established():
                    unopened = max(0, program.num_sealed - len(other.heard))
                    self.resent.append((unopened, event.resent_messages))
                    program.num_sealed = len(program.said)


def test_any_drops_and_reconnections(make_pair: MakePair) -> None:
    DroppingLink.make_pair = staticmethod(make_pair)
    machine = DroppingLink.TestCase
    machine.settings = settings(max_examples=50, stateful_step_count=60, deadline=None)
    machine().runTest()
