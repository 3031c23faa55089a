"""The soak: faults come back, what is not survived is told, and growth is that of the second half."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import soak_faults
from bench.soak_faults import Progress, Weather
from bench.soak_growth import Kept, Sample, growth
from splitlearn.errors import ProcessError


class FakeStage:
    """Notes what was done to whom; a step is done whenever it is said so."""

    def __init__(self) -> None:
        self.silos, self.workers = ("north", "south"), ("worker-1",)
        self.folder = Path("stage")
        self.done: list[tuple[str, str]] = []
        self.dead: set[str] = set()
        self.steps = 0

    def __getattr__(self, verb: str) -> Callable[..., None]:
        def note(part: str, **_: object) -> None:
            self.done.append((verb, part))
            self.dead.discard(part)

        return note

    def is_running(self, part: str) -> bool:
        return part not in self.dead

    def steps_done(self) -> int:
        return self.steps


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("bench.soak_faults.monotonic", lambda: now[0])
    return now


def weather(stage: Any, seed: int) -> Weather:
    return Weather(stage, random.Random(seed))


class TestWeather:
    @pytest.mark.parametrize("seed", range(12))
    def test_what_was_struck_comes_back_and_is_survived_by_a_step(
        self, seed: int, clock: list[float]
    ) -> None:
        stage = FakeStage()
        drawn = weather(stage, seed)
        clock[0] += 60
        assert drawn.is_due
        drawn.strike()
        struck = [part for verb, part in stage.done if verb in {"kill", "freeze"}]
        clock[0] += 60
        drawn.look_after()
        back = [part for verb, part in stage.done if verb in {"start", "thaw"}]
        assert sorted(back) == sorted(part for part in struck if not part.startswith("child-"))
        assert not drawn.survived
        stage.steps += 1
        clock[0] += 1.5
        drawn.look_after()
        assert [fault.seconds for fault in drawn.survived] == [1.5]
        assert not drawn.is_due

    def test_most_faults_wait_for_a_committed_round(self, clock: list[float]) -> None:
        """On a machine on which faults by the clock alone would come faster than rounds."""
        stage, early = FakeStage(), 0
        drawn = weather(stage, 0)
        for number in range(100):
            drawn.see(Progress("job", number))
            clock[0] += 60
            assert drawn.is_due
            drawn.strike()
            clock[0] += 60
            drawn.look_after()
            stage.steps += 1
            drawn.look_after()
            clock[0] += 60
            early += drawn.is_due
        assert len(drawn.survived) == 100
        assert 10 < early < 40

    def test_a_fault_after_which_nothing_is_trained_ends_the_soak_by_its_name(
        self, clock: list[float]
    ) -> None:
        drawn = weather(FakeStage(), 0)
        drawn.strike()
        clock[0] += 60
        drawn.look_after()
        clock[0] += 300
        with pytest.raises(ProcessError, match=r"no step within 240 s after: (kill|freeze) "):
            drawn.look_after()

    def test_what_dies_by_itself_is_started_again(self, clock: list[float]) -> None:
        stage = FakeStage()
        stage.dead = {"gateway"}
        weather(stage, 0).look_after()
        assert stage.done == [("start", "gateway")]
        assert clock

    def test_servers_are_started_before_those_who_need_them(self) -> None:
        parts = ("worker-1", "gateway", "api", "broker", "database")
        assert soak_faults._in_order(parts) == ["database", "broker", "api", "gateway", "worker-1"]


def taken(minute: float, memory: int) -> Sample:
    return Sample(minute, {"api": Kept(memory_bytes=memory, open_files=10)})


class TestGrowth:
    def test_is_the_slope_of_the_second_half(self) -> None:
        samples = [taken(0, 10), taken(15, 500), taken(30, 600), taken(60, 700)]
        [api] = growth(samples)
        assert api.memory_per_hour == pytest.approx(200)
        assert api.files_per_hour == 0
        assert api.last.memory_bytes == 700

    def test_of_one_sample_is_none(self) -> None:
        [api] = growth([taken(1, 10)])
        assert api.memory_per_hour == 0
        assert growth([]) == []
