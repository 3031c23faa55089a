import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from client_agent import reporting
from client_agent.reporting import MetricsOutbox, points_of_progress, points_of_report, points_of_round
from splitlearn.control_plane.schemas import MetricPoint
from splitlearn.errors import StorageError
from splitlearn.parties import Evaluated, StepDone
from splitlearn.tasks import DataReport, Score

POINTS = points_of_round(1, {"wire_bytes": 7.0, "resent_messages": 0.0})


def step(loss: float = 1 / 3) -> StepDone:
    return StepDone("north", 2, 5, loss, 4, 9, applied=True, seconds=0.5)


class TestPoints:
    def test_of_a_step_keep_every_bit(self) -> None:
        [loss] = [point for point in points_of_progress(step()) if point.name == "loss"]
        assert MetricPoint.model_validate_json(loss.model_dump_json()).value == 1 / 3

    def test_of_a_step_without_a_loss_leave_it_out(self) -> None:
        names = {point.name for point in points_of_progress(step(math.nan))}
        assert names == {"label_tokens", "valid_tokens", "seconds", "compute_seconds", "applied"}

    def test_of_an_evaluation_belong_to_the_round(self) -> None:
        points = points_of_progress(Evaluated("north", 3, 1.5, 20, None))
        assert {(point.name, point.round, point.step) for point in points} == {
            ("eval_loss", 3, -1),
            ("eval_rows", 3, -1),
            ("eval_tokens", 3, -1),
        }

    def test_of_a_choice_have_an_accuracy(self) -> None:
        points = points_of_progress(Evaluated("north", 3, 1.5, 20, 0.25))
        assert {point.value for point in points if point.name == "accuracy"} == {0.25}

    def test_of_a_choice_have_its_scores(self) -> None:
        scores = (Score("f1", 0.5, 20), Score("precision_0", 0.75, 20))
        points = points_of_progress(Evaluated("north", 3, 1.5, 20, 0.25, scores=scores, num_rows=40))
        assert {point.name: point.value for point in points}.items() >= {
            "f1": 0.5,
            "precision_0": 0.75,
        }.items()

    def test_of_the_rows_stand_before_the_first_round(self) -> None:
        points = points_of_report(DataReport(9, 8, 1, 0, 0, 0, 0, 70, 60, 24))
        assert {point.name: point.value for point in points if point.round == 0}["rows_training"] == 8


class TestWithheld:
    EVALUATED = Evaluated("north", 3, 1.5, 20, 0.25, scores=(Score("f1", 0.5, 3),), num_rows=9)

    def test_nothing_is_by_itself(self) -> None:
        names = {point.name for point in points_of_progress(self.EVALUATED)}
        assert names == {"eval_rows", "eval_loss", "eval_tokens", "accuracy", "f1"}

    def test_an_evaluation_of_too_few_rows_leaves_their_number_and_the_limit(self) -> None:
        points = points_of_progress(self.EVALUATED, min_rows=10)
        assert {point.name: point.value for point in points} == {"eval_rows": 9, "eval_withheld_below": 10}

    def test_as_many_rows_as_the_limit_are_enough(self) -> None:
        assert "eval_loss" in {point.name for point in points_of_progress(self.EVALUATED, min_rows=9)}

    def test_a_score_that_stands_on_fewer_rows_is_left_out_alone(self) -> None:
        names = {point.name for point in points_of_progress(self.EVALUATED, min_rows=4)}
        assert names == {"eval_rows", "eval_loss", "eval_tokens", "accuracy"}

    def test_the_loss_of_a_step_of_too_few_rows_is_left_out(self) -> None:
        done = replace(step(), num_rows=4)
        assert "loss" in {point.name for point in points_of_progress(done, min_rows=4)}
        assert "loss" not in {point.name for point in points_of_progress(done, min_rows=5)}

    def test_the_limit_itself_is_told(self) -> None:
        points = points_of_report(DataReport(9, 8, 1, 0, 0, 0, 0, 70, 60, 24), min_rows=7)
        assert {point.value for point in points if point.name == "min_metric_rows"} == {7}


class Receiver:
    """Accepts points, or nothing while it is away."""

    def __init__(self) -> None:
        self.batches: list[Sequence[MetricPoint]] = []
        self.is_there = asyncio.Event()
        self.has_accepted = asyncio.Event()

    async def __call__(self, points: tuple[MetricPoint, ...]) -> None:
        await self.is_there.wait()
        self.batches.append(points)
        self.has_accepted.set()


async def drain(outbox: MetricsOutbox) -> None:
    sender = asyncio.create_task(outbox.run())
    await asyncio.wait_for(outbox.drained(), 5)
    sender.cancel()
    await asyncio.gather(sender, return_exceptions=True)


class TestOutbox:
    def test_sends_what_was_put(self, tmp_path: Path) -> None:
        async def check() -> None:
            receiver = Receiver()
            receiver.is_there.set()
            outbox = MetricsOutbox(tmp_path / "m", send=receiver)
            outbox.put(POINTS)
            await drain(outbox)
            assert receiver.batches == [tuple(POINTS)]

        asyncio.run(check())

    def test_keeps_on_disk_what_nobody_has_accepted(self, tmp_path: Path) -> None:
        async def check() -> None:
            MetricsOutbox(tmp_path / "m", send=Receiver()).put(POINTS)
            receiver = Receiver()
            receiver.is_there.set()
            await drain(MetricsOutbox(tmp_path / "m", send=receiver))
            assert receiver.batches == [tuple(POINTS)]

        asyncio.run(check())

    def test_passes_over_a_torn_last_line(self, tmp_path: Path) -> None:
        (tmp_path / "m").write_text(POINTS[0].model_dump_json() + '\n{"name": "lo')

        async def check() -> None:
            receiver = Receiver()
            receiver.is_there.set()
            await drain(MetricsOutbox(tmp_path / "m", send=receiver))
            assert receiver.batches == [(POINTS[0],)]

        asyncio.run(check())

    def test_leaves_no_file_when_everything_is_accepted(self, tmp_path: Path) -> None:
        async def check() -> None:
            receiver = Receiver()
            receiver.is_there.set()
            outbox = MetricsOutbox(tmp_path / "m", send=receiver)
            outbox.put(POINTS)
            await drain(outbox)
            assert not (tmp_path / "m").exists()

        asyncio.run(check())

    def test_does_not_pause_when_it_is_waited_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reporting, "_BATCH_SECONDS", 600.0)

        async def check() -> None:
            receiver = Receiver()
            receiver.is_there.set()
            outbox = MetricsOutbox(tmp_path / "m", send=receiver)
            sender = asyncio.create_task(outbox.run())
            outbox.put(POINTS)
            await receiver.has_accepted.wait()
            outbox.put(POINTS)
            await asyncio.wait_for(outbox.drained(), 30)
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
            assert len(receiver.batches) == 2

        asyncio.run(check())

    def test_says_where_it_cannot_write(self, tmp_path: Path) -> None:
        async def check() -> None:
            outbox = MetricsOutbox(tmp_path / "gone/m", send=Receiver())
            with pytest.raises(StorageError, match="cannot write"):
                outbox.put(POINTS)

        asyncio.run(check())
