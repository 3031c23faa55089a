"""What may be said in a generating turn, and when."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from splitlearn.errors import LocalProtocolError
from splitlearn.protocol import (
    GENERATION_PHASES,
    MAX_CACHES,
    IllegalMessageError,
    PhaseRefusedError,
    Position,
    Received,
    State,
)
from splitlearn.wire import (
    Activations,
    CachedHidden,
    CacheEnd,
    CacheLimit,
    CacheRefused,
    Codec,
    Decode,
    Goodbye,
    GoodbyeReason,
    JobEnd,
    JobStatus,
    Message,
    PaddingSide,
    Phase,
    Prefill,
    Ready,
    Refusal,
    RefusalCode,
    TrunkMessage,
    TurnEnd,
    TurnRequest,
    TurnResult,
    TurnStart,
    UnlistedError,
    encode_message,
)

READY = Ready(last_round=3, served=GENERATION_PHASES)
START = TurnStart(phase=Phase.GENERATE, round=3, first_step=0, num_steps=0)
END = TurnEnd(outcome=None, loss_sum=0.0, num_tokens=0)


def rows(number: int) -> Any:
    return np.ones((number, 4), np.float32)


def prefill(cache: int = 0, *, lengths: Sequence[int] = (2, 1), capacity: int = 4) -> Prefill:
    return Prefill(cache=cache, capacity=capacity, lengths=tuple(lengths), hidden=rows(sum(lengths)))


def decode(*positions: int, rows_: Sequence[int] = (0, 1), cache: int = 0) -> Decode:
    return Decode(cache=cache, rows=tuple(rows_), positions=positions, hidden=rows(len(positions)))


def answer(number: int, cache: int = 0) -> CachedHidden:
    return CachedHidden(cache=cache, hidden=rows(number))


def refused(cache: int = 0) -> CacheRefused:
    return CacheRefused(cache=cache, limit=CacheLimit.BYTES, asked=9, allowed=4)


def say(pair: Any, *messages: Message) -> None:
    for message in messages:
        (pair.trunk if isinstance(message, TrunkMessage) else pair.silo).send(message)
        pair.pump()


def received(side: Any) -> list[Message]:
    return [event.message for event in side.events() if isinstance(event, Received)]


@pytest.fixture
def talk(make_pair: Any) -> Any:
    """Both sides in a generating turn."""
    pair = make_pair(served_phases=GENERATION_PHASES)
    pair.connect()
    say(pair, READY, TurnRequest(phase=Phase.GENERATE), START)
    pair.silo.events()
    pair.trunk.events()
    return pair


class TestTurn:
    def test_goes_from_prompts_to_a_goodbye(self, talk: Any) -> None:
        say(talk, prefill(), answer(3), decode(2, 1), answer(2), decode(2, rows_=(1,)), answer(1))
        say(talk, CacheEnd(cache=0), END, TurnResult(voided=False), Goodbye(reason=GoodbyeReason.FINISHED))
        assert (talk.silo.state, talk.trunk.state) == (State.OVER, State.OVER)
        assert len(received(talk.trunk)) == 6
        assert len(received(talk.silo)) == 4

    def test_has_one_place(self, talk: Any) -> None:
        say(talk, prefill(), answer(3), CacheEnd(cache=0), END)
        positions = {event.position for event in talk.trunk.events() if isinstance(event, Received)}
        assert positions == {Position(round=3, step=0)}
        assert talk.silo.phase is Phase.GENERATE

    def test_holds_several_caches_at_once(self, talk: Any) -> None:
        say(talk, prefill(0), prefill(1, lengths=(1,)), answer(1, 1), decode(1, rows_=(0,), cache=1))
        say(talk, answer(3, 0), decode(2, 1), answer(1, 1), answer(2), CacheEnd(cache=1), CacheEnd(cache=0))

    def test_ends_with_what_is_still_open(self, talk: Any) -> None:
        say(talk, prefill(), answer(3), END, TurnResult(voided=False), TurnRequest(phase=Phase.GENERATE))
        say(talk, START, prefill(0), answer(3))

    def test_goes_on_after_a_refusal(self, talk: Any) -> None:
        say(talk, prefill(0), refused(0), prefill(1), answer(3, 1))
        assert received(talk.silo) == [refused(0), answer(3, 1)]

    def test_may_be_ended_by_the_trunk_at_any_time(self, talk: Any) -> None:
        say(talk, prefill(), answer(3))
        talk.silo.send(decode(2, 1))
        talk.trunk.send(JobEnd(status=JobStatus.COMPLETED))
        talk.pump()
        assert received(talk.silo)[-1] == JobEnd(status=JobStatus.COMPLETED)
        assert talk.trunk.state is State.ENDED

    @pytest.mark.parametrize(
        ("before", "illegal"),
        [
            ((), prefill(1)),
            ((), decode(2, 1)),
            ((), CacheEnd(cache=0)),
            ((prefill(),), decode(2, 1)),
            ((prefill(),), CacheEnd(cache=0)),
            ((prefill(),), END),
            ((prefill(),), prefill(0)),
            ((prefill(), answer(3)), decode(2, 2)),
            ((prefill(), answer(3)), decode(1, 1)),
            ((prefill(), answer(3)), decode(2, 1, 0, rows_=(0, 1, 2))),
            ((prefill(capacity=2), answer(3)), decode(2, 1)),
            ((prefill(), answer(3), decode(2, rows_=(0,)), answer(1)), decode(2, 1)),
            ((prefill(), answer(3), decode(2, rows_=(0,)), answer(1)), decode(3, 1)),
            ((prefill(), refused()), decode(2, 1)),
            ((prefill(), answer(3), CacheEnd(cache=0)), decode(2, 1)),
            (
                (),
                Activations(
                    phase=Phase.GENERATE,
                    micro_batch=0,
                    num_micro_batches=1,
                    lengths=(1,),
                    padding_side=PaddingSide.LEFT,
                    num_label_tokens=0,
                    outcome=None,
                    hidden=rows(1),
                ),
            ),
        ],
    )
    def test_the_silo_may_not(self, talk: Any, before: tuple[Message, ...], illegal: Message) -> None:
        say(talk, *before)
        with pytest.raises(LocalProtocolError):
            talk.silo.send(illegal)

    @pytest.mark.parametrize(
        ("before", "illegal"),
        [
            ((), answer(3)),
            ((), refused()),
            ((prefill(),), answer(2)),
            ((prefill(),), answer(3, 1)),
            ((prefill(), answer(3)), answer(3)),
            ((prefill(), answer(3)), CachedHidden(cache=0, hidden=rows(0))),
            ((prefill(), answer(3), decode(2, 1)), refused()),
            ((), TurnResult(voided=False)),
            ((), START),
        ],
    )
    def test_the_trunk_may_not(self, talk: Any, before: tuple[Message, ...], illegal: Message) -> None:
        say(talk, *before)
        with pytest.raises(LocalProtocolError):
            talk.trunk.send(illegal)

    def test_bounds_the_caches(self, talk: Any) -> None:
        for cache in range(MAX_CACHES):
            say(talk, prefill(cache, lengths=(1,)), answer(1, cache))
        with pytest.raises(LocalProtocolError, match=f"while {MAX_CACHES} are open"):
            talk.silo.send(prefill(MAX_CACHES))

    def test_a_silo_that_skips_a_position_is_refused(self, talk: Any, break_rules: Any) -> None:
        say(talk, prefill(), answer(3))
        rules = talk.silo._rules
        break_rules(talk.silo)
        talk.silo._rules.send = lambda _: rules._current_position()
        talk.silo.send(decode(3, 1))
        with pytest.raises(IllegalMessageError, match="row 0 of cache 0 got a token at position 3; it has 2"):
            talk.pump()


class TestServing:
    def test_is_not_the_rule_at_the_trunk(self, pair: Any) -> None:
        say(pair, READY, TurnRequest(phase=Phase.GENERATE))
        assert received(pair.silo) == [Refusal(code=RefusalCode.UNSERVED_PHASE)]

    def test_is_not_the_rule_at_the_silo(self, pair: Any) -> None:
        say(pair, READY)
        pair.trunk.send(START)
        with pytest.raises(PhaseRefusedError, match="generate; silo 'north' serves eval, train"):
            pair.pump()

    def test_of_generation_alone_refuses_to_train(self, make_pair: Any) -> None:
        pair = make_pair(served_phases=GENERATION_PHASES)
        pair.connect()
        say(pair, READY, TurnRequest(phase=Phase.TRAIN))
        assert received(pair.silo) == [Refusal(code=RefusalCode.UNSERVED_PHASE)]


class TestMessages:
    @pytest.mark.parametrize(
        ("message", "said"),
        [
            (Prefill(cache=0, capacity=4, lengths=(2, 2), hidden=rows(3)), "sum to 4, hidden has 3"),
            (Prefill(cache=0, capacity=4, lengths=(3, 0), hidden=rows(3)), "at least one token"),
            (Prefill(cache=0, capacity=4, lengths=(), hidden=rows(0)), "at least one prompt"),
            (Prefill(cache=0, capacity=2, lengths=(3,), hidden=rows(3)), "3 tokens in a cache for 2"),
            (Decode(cache=0, rows=(0,), positions=(1, 1), hidden=rows(1)), "one of each per row"),
            (Decode(cache=0, rows=(0,), positions=(1,), hidden=rows(2)), "one of each per row"),
            (Decode(cache=0, rows=(), positions=(), hidden=rows(0)), "at least one row"),
            (Decode(cache=0, rows=(1, 0), positions=(1, 1), hidden=rows(2)), "ascending"),
            (Decode(cache=0, rows=(1, 1), positions=(1, 1), hidden=rows(2)), "ascending"),
        ],
    )
    def test_that_contradict_themselves_are_not_said(self, message: Message, said: str) -> None:
        with pytest.raises(UnlistedError, match=said):
            encode_message(message, codec=Codec.FP32)
