from typing import Any

import numpy as np
import pytest

from splitlearn.channel import UnexpectedKindError
from splitlearn.errors import ChannelError, LocalProtocolError, TrunklineError
from splitlearn.protocol import (
    Established,
    IllegalMessageError,
    MalformedMessageError,
    PhaseRefusedError,
    Received,
    ResumeImpossibleError,
    State,
    WindowExceededError,
)
from splitlearn.protocol.delivery import Inbox, Outbox, Position
from splitlearn.wire import (
    Activations,
    Direction,
    Envelope,
    FrameError,
    Goodbye,
    GoodbyeReason,
    GradActivations,
    GradHidden,
    Hidden,
    JobEnd,
    JobStatus,
    Kind,
    Limits,
    Message,
    Outcome,
    PaddingSide,
    Phase,
    Ready,
    Refusal,
    RefusalCode,
    RoundEnd,
    RoundSaved,
    StepVoid,
    SumConsent,
    SumConsents,
    SumDone,
    SumEnd,
    SumKey,
    SumPart,
    SumRoster,
    SumStart,
    SumTotal,
    TurnEnd,
    TurnRequest,
    TurnResult,
    TurnStart,
)

OUTCOME = Outcome(norms_bottom=(1.0,), norms_trunk=(), norms_top=(2.0,), finite=True, num_tokens=3)
READY = Ready(last_round=0, served=frozenset({Phase.TRAIN, Phase.EVAL}))


def train_turn(num_steps: int = 2) -> TurnStart:
    return TurnStart(phase=Phase.TRAIN, round=1, first_step=0, num_steps=num_steps)


def activations(micro_batch: int = 0, of: int = 1, *, phase: Phase = Phase.TRAIN) -> Activations:
    return Activations(
        phase=phase,
        micro_batch=micro_batch,
        num_micro_batches=of,
        lengths=(2, 1),
        padding_side=PaddingSide.RIGHT,
        num_label_tokens=2,
        outcome=None,
        hidden=np.arange(600, dtype=np.float32).reshape(3, 200),
    )


def hidden(micro_batch: int = 0) -> Hidden:
    return Hidden(micro_batch=micro_batch, hidden=np.ones((3, 4), np.float32))


def grad_hidden(micro_batch: int = 0) -> GradHidden:
    return GradHidden(micro_batch=micro_batch, loss_sum=1.5, grad=np.ones((3, 4), np.float32))


def grad_activations(micro_batch: int = 0, outcome: Outcome | None = OUTCOME) -> GradActivations:
    return GradActivations(micro_batch=micro_batch, outcome=outcome, grad=None)


def say(pair: Any, *messages: Message) -> None:
    """Let whoever may say each message say it, and deliver it."""
    trunk_says = (
        *(TurnStart, Hidden, GradActivations, StepVoid, TurnResult, JobEnd, Refusal),
        *(SumStart, SumRoster, SumConsents, SumTotal, SumEnd),
    )
    for message in messages:
        side = pair.trunk if isinstance(message, trunk_says) else pair.silo
        side.send(message)
        pair.pump()


def received(side: Any) -> list[Message]:
    return [event.message for event in side.events() if isinstance(event, Received)]


STEP = (activations(), hidden(), grad_hidden(), grad_activations())


class TestHandshake:
    def test_both_sides_report_it_once(self, pair: Any) -> None:
        pair.drop()
        pair.connect()
        pair.pump()
        assert pair.silo.events() == [Established(resent_messages=0)]
        assert pair.trunk.events() == [Established(resent_messages=0)]

    def test_nothing_is_sealed_before_it(self, pair: Any) -> None:
        pair.drop()
        pair.silo.send(READY)
        assert pair.silo.data_to_send() == []

    def test_a_handshake_frame_inside_a_session_ends_it(self, pair: Any) -> None:
        pair.silo.connection_made(pair.now)
        [hello] = pair.silo.data_to_send()
        with pytest.raises(UnexpectedKindError):
            pair.trunk.receive_data(hello)

    def test_a_second_hello_or_an_early_confirm_is_the_peers_fault(self, pair: Any) -> None:
        pair.drop()
        pair.connect()
        [hello] = pair.silo.data_to_send()
        pair.trunk.receive_data(hello)
        [reply] = pair.trunk.data_to_send()
        with pytest.raises(UnexpectedKindError, match="HELLO"):
            pair.trunk.receive_data(hello)
        pair.silo.receive_data(reply)
        confirm = pair.silo.data_to_send()[0]
        pair.trunk.connection_made(pair.now)
        with pytest.raises(UnexpectedKindError, match="CONFIRM"):
            pair.trunk.receive_data(confirm)

    def test_a_link_delivers_whole_frames(self, pair: Any) -> None:
        pair.silo.send(READY)
        [frame] = pair.silo.data_to_send()
        with pytest.raises(FrameError, match="ends"):
            pair.trunk.receive_whole(bytes(frame)[:-1])
        assert not pair.trunk.is_established

    def test_a_sealed_frame_before_the_end_of_it_is_refused(self, pair: Any) -> None:
        pair.silo.send(READY)
        [frame] = pair.silo.data_to_send()
        pair.trunk.connection_made(pair.now)
        with pytest.raises(UnexpectedKindError, match="before the handshake"):
            pair.trunk.receive_data(frame)


class TestTurn:
    def test_a_whole_job(self, pair: Any) -> None:
        say(pair, READY, train_turn(), *STEP, *STEP)
        say(pair, TurnEnd(outcome=OUTCOME, loss_sum=3.0, num_tokens=4), TurnResult(voided=False))
        say(pair, JobEnd(status=JobStatus.COMPLETED), Goodbye(reason=GoodbyeReason.FINISHED))
        assert pair.silo.state is State.OVER
        assert pair.trunk.state is State.OVER
        assert len(received(pair.trunk)) == 1 + 2 * 2 + 1 + 1
        assert len(received(pair.silo)) == 1 + 2 * 2 + 1 + 1

    def test_tensors_arrive_as_they_were_sent(self, pair: Any) -> None:
        say(pair, READY, train_turn(), activations())
        message = received(pair.trunk)[-1]
        assert message == activations()

    def test_several_micro_batches_overlap(self, pair: Any) -> None:
        say(pair, READY, train_turn(1), activations(0, 2), activations(1, 2))
        say(pair, hidden(0), grad_hidden(0), hidden(1), grad_activations(0, None), grad_hidden(1))
        say(pair, grad_activations(1), TurnEnd(outcome=OUTCOME, loss_sum=0.0, num_tokens=0))
        assert pair.trunk.state is State.CLOSING_TURN

    def test_an_evaluation_lasts_as_long_as_the_silo_wants(self, pair: Any) -> None:
        say(pair, READY, TurnStart(phase=Phase.EVAL, round=1, first_step=0, num_steps=0))
        for _ in range(3):
            say(pair, activations(phase=Phase.EVAL), hidden())
        say(pair, TurnEnd(outcome=None, loss_sum=1.0, num_tokens=2), TurnResult(voided=False))
        assert pair.silo.state is State.WAITING

    @pytest.mark.parametrize(
        ("before", "illegal"),
        [
            ((), activations()),
            ((READY,), READY),
            ((READY,), activations()),
            ((READY,), TurnEnd(outcome=None, loss_sum=0.0, num_tokens=0)),
            ((READY, train_turn()), TurnEnd(outcome=None, loss_sum=0.0, num_tokens=0)),
            ((READY, train_turn()), grad_hidden()),
            ((READY, train_turn()), activations(1, 2)),
            ((READY, train_turn()), activations(phase=Phase.EVAL)),
            ((READY, train_turn(), activations()), activations()),
            ((READY, train_turn(), activations(0, 3)), activations(1, 2)),
            ((READY, train_turn(), activations(), hidden()), grad_hidden(1)),
            ((READY, train_turn(), *STEP[:3]), grad_hidden()),
            ((READY, train_turn(1), *STEP), activations()),
        ],
    )
    def test_the_silo_may_not(self, pair: Any, before: tuple[Message, ...], illegal: Message) -> None:
        say(pair, *before)
        with pytest.raises(LocalProtocolError):
            pair.silo.send(illegal)

    @pytest.mark.parametrize(
        ("before", "illegal"),
        [
            ((), train_turn()),
            ((READY, train_turn()), train_turn()),
            ((READY, train_turn()), hidden()),
            ((READY, train_turn(), activations()), grad_activations()),
            ((READY, train_turn(), *STEP[:2]), hidden()),
            ((READY, train_turn(), *STEP[:2]), StepVoid(step=0)),
            ((READY, train_turn()), StepVoid(step=0)),
            ((READY, train_turn(), activations()), StepVoid(step=1)),
            ((READY,), TurnResult(voided=False)),
            ((READY,), activations()),
        ],
    )
    def test_the_trunk_may_not(self, pair: Any, before: tuple[Message, ...], illegal: Message) -> None:
        say(pair, *before)
        with pytest.raises(LocalProtocolError):
            pair.trunk.send(illegal)

    def test_a_peer_that_breaks_the_rules_is_told_apart_from_a_bug(self, pair: Any, break_rules: Any) -> None:
        break_rules(pair.silo)
        pair.silo.send(activations())
        with pytest.raises(IllegalMessageError, match="Activations"):
            pair.pump()
        assert not pair.trunk.is_established

    def test_a_peer_at_another_step_is_refused(self, pair: Any, move_step: Any) -> None:
        say(pair, READY, train_turn(3), *STEP)
        move_step(pair.silo, by=1)
        pair.silo.send(activations())
        with pytest.raises(TrunklineError, match="step") as caught:
            pair.pump()
        assert caught.value.code == "wrong_step"


WORDS = np.arange(5, dtype=np.uint32)
KEY = SumKey(
    certificate=bytes(9),
    key=bytes(32),
    num_tokens=3,
    num_words=5,
    next_attempt=1,
    signature=bytes(64),
)
PART, TOTAL = SumPart(offset=0, words=WORDS), SumTotal(offset=0, words=WORDS)
CONSENT = SumConsent(signature=bytes(64), seeds=())
SUM = (
    *(SumStart(round=1, step=2), KEY, SumRoster(attempt=1, members=(KEY,)), CONSENT),
    *(SumConsents(signatures=(bytes(64),), seed=None), PART, TOTAL),
)


class TestSum:
    def test_stands_between_turns(self, pair: Any) -> None:
        say(pair, READY, *SUM, SumEnd(averaged=True), SumDone(averaged=True))
        assert (pair.silo.state, pair.trunk.state) == (State.WAITING, State.WAITING)
        assert received(pair.trunk)[1:] == [KEY, CONSENT, PART, SumDone(averaged=True)]
        assert len(received(pair.silo)) == 5

    def test_is_placed_at_its_round(self, pair: Any) -> None:
        say(pair, READY, *SUM)
        positions = {event.position for event in pair.silo.events() if isinstance(event, Received)}
        assert positions == {Position(round=1)}

    def test_given_up_drops_what_was_on_its_way(self, pair: Any) -> None:
        say(pair, READY, *SUM[:5])
        received(pair.trunk)
        pair.silo.send(PART)
        pair.trunk.send(SumEnd(averaged=False))
        pair.pump()
        assert received(pair.silo)[-1] == SumEnd(averaged=False)
        say(pair, SumDone(averaged=False), train_turn(), *STEP)
        assert pair.trunk.state is State.TRAINING

    @pytest.mark.parametrize(
        ("before", "illegal"),
        [
            ((READY,), PART),
            ((READY,), SumDone(averaged=True)),
            ((READY, *SUM), SumDone(averaged=True)),
            ((READY, train_turn()), KEY),
        ],
    )
    def test_has_its_place_for_the_silo(
        self, pair: Any, before: tuple[Message, ...], illegal: Message
    ) -> None:
        say(pair, *before)
        with pytest.raises(LocalProtocolError):
            pair.silo.send(illegal)

    @pytest.mark.parametrize(
        ("before", "illegal"),
        [
            ((), SumStart(round=1, step=0)),
            ((READY,), TOTAL),
            ((READY, train_turn()), SumStart(round=1, step=0)),
            ((READY, *SUM), SumStart(round=1, step=2)),
            ((READY, *SUM), train_turn()),
            ((READY, *SUM, SumEnd(averaged=True)), TOTAL),
        ],
    )
    def test_has_its_place_for_the_trunk(
        self, pair: Any, before: tuple[Message, ...], illegal: Message
    ) -> None:
        say(pair, *before)
        with pytest.raises(LocalProtocolError):
            pair.trunk.send(illegal)


class TestVoid:
    def test_the_step_begins_again(self, pair: Any) -> None:
        say(pair, READY, train_turn(), *STEP, activations(), StepVoid(step=1))
        say(pair, *STEP, TurnEnd(outcome=OUTCOME, loss_sum=0.0, num_tokens=0))
        assert pair.trunk.state is State.CLOSING_TURN

    def test_what_was_on_its_way_is_dropped(self, pair: Any) -> None:
        say(pair, READY, train_turn(1))
        pair.silo.send(activations(0, 2))
        pair.pump()
        received(pair.trunk)
        pair.silo.send(activations(1, 2))
        pair.trunk.send(StepVoid(step=0))
        pair.pump()
        assert received(pair.trunk) == []
        say(pair, activations(0, 2), activations(1, 2))
        assert received(pair.trunk) == [activations(0, 2), activations(1, 2)]


class TestPhase:
    def test_lasts_from_a_turns_start_to_the_rounds_end(self, pair: Any) -> None:
        say(pair, READY)
        assert (pair.silo.phase, pair.trunk.phase) == (None, None)
        say(pair, train_turn(1), *STEP)
        say(pair, TurnEnd(outcome=OUTCOME, loss_sum=3.0, num_tokens=4), TurnResult(voided=False))
        assert (pair.silo.phase, pair.trunk.phase) == (Phase.TRAIN, Phase.TRAIN)
        pair.trunk.send(RoundEnd(round=1))
        pair.pump()
        assert (pair.silo.phase, pair.trunk.phase) == (None, None)
        say(pair, RoundSaved(round=1), TurnStart(phase=Phase.EVAL, round=2, first_step=1, num_steps=0))
        assert (pair.silo.phase, pair.trunk.phase) == (Phase.EVAL, Phase.EVAL)

    def test_an_unserved_phase_is_a_typed_refusal(self, pair: Any) -> None:
        say(pair, READY, TurnRequest(phase=Phase.GENERATE))
        assert received(pair.silo) == [Refusal(code=RefusalCode.UNSERVED_PHASE)]
        say(pair, train_turn(), *STEP)

    def test_a_request_may_cross_the_start_of_a_turn(self, pair: Any) -> None:
        say(pair, READY)
        pair.silo.send(TurnRequest(phase=Phase.GENERATE))
        pair.trunk.send(train_turn())
        pair.pump()
        assert Refusal(code=RefusalCode.UNSERVED_PHASE) in received(pair.silo)
        say(pair, *STEP)

    def test_a_silo_that_only_asks_is_cut_off(self, pair: Any) -> None:
        say(pair, READY)

        def ask_and_never_read() -> None:
            for _ in range(100):
                pair.silo.send(TurnRequest(phase=Phase.GENERATE))
                for frame in pair.silo.data_to_send():
                    pair.trunk.receive_data(frame)
                pair.silo._outbox._kept.clear()

        with pytest.raises(WindowExceededError):
            ask_and_never_read()

    def test_phase_refused_is_a_protocol_error(self) -> None:
        assert PhaseRefusedError("no").code == "phase_refused"


class TestEnd:
    def test_a_job_may_end_in_the_middle_of_a_step(self, pair: Any) -> None:
        say(pair, READY, train_turn())
        pair.silo.send(activations())
        pair.trunk.send(JobEnd(status=JobStatus.CANCELLED))
        received(pair.trunk)
        pair.pump()
        assert received(pair.trunk) == []
        assert received(pair.silo)[-1] == JobEnd(status=JobStatus.CANCELLED)
        say(pair, Goodbye(reason=GoodbyeReason.CANCELLED))
        assert pair.trunk.state is State.OVER

    def test_what_crosses_a_goodbye_is_dropped(self, pair: Any) -> None:
        say(pair, READY)
        received(pair.silo)
        pair.silo.send(Goodbye(reason=GoodbyeReason.FAILED))
        pair.trunk.send(train_turn())
        pair.trunk.send(JobEnd(status=JobStatus.FAILED))
        pair.pump()
        assert pair.silo.state is State.OVER
        assert received(pair.silo) == []
        assert received(pair.trunk)[-1] == Goodbye(reason=GoodbyeReason.FAILED)

    def test_nothing_follows_goodbye(self, pair: Any) -> None:
        say(pair, READY, Goodbye(reason=GoodbyeReason.FAILED))
        for side, message in ((pair.silo, READY), (pair.trunk, train_turn())):
            with pytest.raises(LocalProtocolError):
                side.send(message)


class TestResume:
    def test_sends_again_exactly_what_was_not_opened(self, pair: Any) -> None:
        say(pair, READY, train_turn())
        pair.silo.send(activations())
        pair.drop()
        received(pair.trunk)
        pair.connect()
        pair.pump()
        assert Established(resent_messages=1) in pair.silo.events()
        events = pair.trunk.events()
        assert events[0] == Established(resent_messages=0)
        assert [event.message for event in events[1:]] == [activations()]

    def test_a_message_cut_in_half_is_sent_again_whole(self, pair: Any) -> None:
        say(pair, READY, train_turn())
        pair.silo.send(activations())
        frames = pair.silo.data_to_send()
        assert len(frames) > 1
        pair.trunk.receive_data(frames[0])
        received(pair.trunk)
        pair.drop()
        pair.connect()
        pair.pump()
        assert received(pair.trunk) == [activations()]

    def test_what_was_opened_is_not_sent_again_though_never_acknowledged(self, pair: Any) -> None:
        say(pair, READY, train_turn(), activations())
        assert not pair.silo.is_answered
        received(pair.trunk)
        pair.drop()
        pair.connect()
        pair.pump()
        assert Established(resent_messages=0) in pair.silo.events()
        assert received(pair.trunk) == []
        assert pair.silo.is_answered

    def test_a_peer_that_lost_its_state_cannot_be_resumed(self, pair: Any, fresh_silo: Any) -> None:
        say(pair, READY, train_turn(), *STEP)
        pair.drop()
        pair.silo = fresh_silo()
        pair.connect()
        with pytest.raises(ResumeImpossibleError, match="last common round"):
            pair.pump()


class TestChunks:
    def test_any_chunking_gives_the_same_events(self, pair: Any) -> None:
        say(pair, READY, train_turn())
        received(pair.trunk)
        pair.silo.send(activations())
        stream = b"".join(pair.silo.data_to_send())
        for start in range(0, len(stream), 7):
            pair.trunk.receive_data(stream[start : start + 7])
        assert received(pair.trunk) == [activations()]


class TestMalformed:
    def test_an_authentic_message_that_cannot_be_read_is_the_peers_fault(self, pair: Any) -> None:
        pair.drop()
        pair.silo.send(READY)
        pair.silo._outbox.kept[0].encoded[0] = 250
        pair.connect()
        with pytest.raises(MalformedMessageError, match="authentic"):
            pair.pump()


class TestForgery:
    """A stranger on the path can end the connection, never the conversation."""

    @pytest.mark.parametrize("field", ["message_seq", "fragment_offset", "message_bytes", "round", "step"])
    def test_a_changed_envelope_is_a_refusal_by_the_channel(self, pair: Any, field: str, change: Any) -> None:
        pair.silo.send(READY)
        [frame] = pair.silo.data_to_send()
        with pytest.raises(ChannelError):
            pair.trunk.receive_data(change(frame, field))
        pair.drop()
        pair.connect()
        pair.pump()
        assert received(pair.trunk) == [READY]

    def test_a_repeated_frame_is_a_refusal_by_the_channel(self, pair: Any) -> None:
        pair.silo.send(READY)
        [frame] = pair.silo.data_to_send()
        pair.trunk.receive_data(frame)
        with pytest.raises(ChannelError):
            pair.trunk.receive_data(frame)


class TestOutbox:
    def test_refuses_more_than_its_window(self) -> None:
        outbox = Outbox(window=1)
        outbox.keep(bytearray(b"a"), Position())
        with pytest.raises(LocalProtocolError, match="1 messages"):
            outbox.keep(bytearray(b"b"), Position())

    def test_refuses_an_acknowledgement_of_what_was_never_sent(self) -> None:
        with pytest.raises(IllegalMessageError, match="0 were sent"):
            Outbox(window=1).acknowledge(1)

    @pytest.mark.parametrize("last_opened", [0, 4])
    def test_refuses_to_resume_outside_what_it_holds(self, last_opened: int) -> None:
        outbox = Outbox(window=4)
        for _ in range(3):
            outbox.keep(bytearray(b"a"), Position())
        outbox.acknowledge(1)
        with pytest.raises(ResumeImpossibleError):
            outbox.resume(last_opened)


class TestInbox:
    @staticmethod
    def envelope(**changes: int) -> Envelope:
        fields = {"round": 1, "step": 0, "message_seq": 1, "fragment_offset": 0, "message_bytes": 10}
        return Envelope(
            kind=Kind.SEALED,
            direction=Direction.SILO_TO_TRUNK,
            replica=0,
            body_bytes=0,
            epoch=1,
            job_tag=bytes(16),
            counter=0,
            **{**fields, **changes},
        )

    def test_refuses_a_message_over_the_limit(self) -> None:
        inbox = Inbox(limits=Limits(max_message_bytes=9), window=4)
        with pytest.raises(MalformedMessageError, match="10 bytes, the limit is 9"):
            inbox.room_for(self.envelope(), 10)

    def test_refuses_a_peer_that_does_not_wait(self) -> None:
        inbox = Inbox(limits=Limits(), window=1)
        inbox.room_for(self.envelope(), 10)
        inbox.fill(10)
        with pytest.raises(WindowExceededError):
            inbox.room_for(self.envelope(message_seq=2), 10)

    @pytest.mark.parametrize(
        "changes",
        [{"fragment_offset": 5}, {"fragment_offset": 3}, {"round": 2}, {"step": 1}, {"message_bytes": 11}],
    )
    def test_refuses_a_fragment_that_does_not_continue(self, changes: dict[str, int]) -> None:
        inbox = Inbox(limits=Limits(), window=4)
        inbox.room_for(self.envelope(), 4)
        assert inbox.fill(4) is None
        with pytest.raises(IllegalMessageError):
            inbox.room_for(self.envelope(**{"fragment_offset": 4, **changes}), 4)

    @pytest.mark.parametrize("plaintext_bytes", [0, 11])
    def test_refuses_a_fragment_that_does_not_fit(self, plaintext_bytes: int) -> None:
        with pytest.raises(MalformedMessageError, match="does not fit"):
            Inbox(limits=Limits(), window=4).room_for(self.envelope(), plaintext_bytes)
