"""The start-up benchmark: its phases leave no gap, and its rounds are compared without the first and last."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bench import startup
from bench.platform_job import Event, Number, Told
from bench.startup import Mark
from splitlearn.simulation.results import SimulationResult
from splitlearn.spec import JobSpec, SiloSpec


def _event(kind: str, second: float, **fields: object) -> Event:
    return Event.model_validate({"kind": kind, "at": datetime.fromtimestamp(second, tz=UTC), **fields})


def _number(party: str, name: str, value: float, *, second: float, round_number: int = 1) -> Number:
    at = datetime.fromtimestamp(second, tz=UTC)
    return Number(party=party, name=name, round=round_number, step=0, value=value, received_at=at)


def _told() -> Told:
    """Four rounds of two steps: 1 s of steps each, and 0.5 s between the rounds."""
    silos = (SiloSpec(name="north", dataset="a"), SiloSpec(name="south", dataset="b"))
    spec = JobSpec(model="none", silos=silos, rounds=4, steps_per_round=2)
    events = [
        _event("job_submitted", 100),
        _event("job_state", 100, to="awaiting_approval"),
        _event("job_state", 104, to="queued"),
        _event("lease_granted", 105),
        _event("silo_attached", 107),
        _event("silo_attached", 108),
        *(
            _event("round_committed", 110 + number, round=number, seconds=1.5 if number in {2, 3} else 9)
            for number in range(1, 5)
        ),
    ]
    numbers = [
        _number("silo:north", "seconds", 0.6, second=111.0),
        _number("silo:south", "seconds", 0.5, second=111.5),
        _number("silo:north", "seconds", 0.4, second=112),
        *(_number("worker:w", "turn_seconds", 1.0, second=113, round_number=n) for n in range(1, 5)),
    ]
    result = SimulationResult(
        status="completed",
        spec=spec,
        threads=1,
        silos=(),
        seconds_per_step=0.5,
        num_steps=8,
        peak_memory_bytes={},
    )
    return Told(result, tuple(events), tuple(numbers))


class TestPhases:
    def test_end_with_the_first_step_of_the_last_silo(self) -> None:
        marks = {mark.phase: mark.ended_at for mark in startup.marks_of_job(_told())}
        assert list(marks.values()) == [104, 105, 108, 111.0, 111.5]
        assert list(marks)[-1] == "first step"

    def test_sum_up_to_the_whole(self) -> None:
        phases = startup.phases_of(10.0, [Mark("a", 12.0), Mark("b", 11.5), Mark("c", 15.0)])
        assert [phase.seconds for phase in phases] == [2.0, 0.0, 3.0]
        rows = startup.phase_rows(phases)
        assert rows[-1] == {"phase": "all", "seconds": 5.0, "share": 1.0}


class TestRounds:
    def test_compares_those_between_the_first_and_the_last(self) -> None:
        row = startup.rounds_row(_told())
        assert row["dispatches"] == 1
        assert row["border_seconds"] == 0.5
        assert row["step_seconds"] == 0.5
        assert row["ratio"] == 1.5
        assert row["dispatch_seconds"] == 7.0


class TestMain:
    @pytest.mark.parametrize("arguments", [["--rounds", "2"], ["--silos", "0"], ["--json", "/dev/null"]])
    def test_refuses_what_it_cannot_do(
        self, arguments: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as refusal:
            startup.main(arguments)
        assert refusal.value.code == 2
        assert arguments[0] in capsys.readouterr().err

    @pytest.mark.slow
    @pytest.mark.long
    def test_measures_a_platform(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "startup.json"
        arguments = ["--silos", "1", "--rounds", "3", "--steps-per-round", "2", "--json", str(path)]
        assert startup.main(arguments) == 0
        *phases, whole, rounds = json.loads(path.read_text())["rows"]
        assert sum(row["seconds"] for row in phases) == pytest.approx(whole["seconds"], rel=1e-9)
        assert rounds["dispatches"] == 1
        assert "first step" in capsys.readouterr().out
