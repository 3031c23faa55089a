from collections.abc import Iterator

from splitlearn.comparison.training_clock import TrainingClock
from splitlearn.parties import BlocksAveraged, TurnFinished, TurnStarted
from splitlearn.wire import Phase


def started(silo: str, phase: Phase = Phase.TRAIN) -> TurnStarted:
    return TurnStarted(silo=silo, phase=phase, round=1, first_step=0, num_steps=1)


def finished(*silos: str) -> TurnFinished:
    return TurnFinished(silos=silos, round=1, num_steps=1, seconds=99)


AVERAGED = BlocksAveraged(silos=("a", "b"), round=1, step=1, averaged=True, seconds=99)


class TestTrainingClock:
    def test_counts_overlapping_turns_once_and_no_evaluation(self) -> None:
        times: Iterator[float] = iter([10.0, 14.0, 15.0, 16.0, 30.0, 33.0])
        clock = TrainingClock(now=lambda: next(times))
        for event in (
            started("a"),  # 10
            started("b"),
            finished("a"),  # 14
            finished("b"),  # 15
            AVERAGED,  # 16
            started("a", Phase.EVAL),
            started("b", Phase.EVAL),
            started("a"),  # 30
            finished("a"),  # 33
        ):
            clock.note(event)
        assert clock.seconds == 6 + 3

    def test_counts_nothing_before_a_turn_has_ended(self) -> None:
        clock = TrainingClock(now=iter([5.0]).__next__)
        clock.note(started("a"))
        assert clock.seconds == 0
