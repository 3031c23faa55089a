"""A job's numbers as TensorBoard and MLflow read them."""

import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest
from tensorboardX.proto.event_pb2 import Event

from backend.cli import exporting
from backend.cli.exporting import Scalar, scalars
from backend.cli.output import CommandError

JOB = {"id": "0f3c0000-0000-4000-8000-000000000001", "name": "job", "state": "completed", "spec_digest": "00"}
ROW = {"party": "silo:north", "name": "loss", "round": 1, "step": 4, "value": 0.5}
ROWS: list[dict[str, Any]] = [
    {**ROW, "received_at": "2026-03-01T12:00:00Z"},
    {**ROW, "name": "eval_loss", "round": 3, "step": -1, "received_at": "2026-03-01T12:00:01Z"},
]
MOMENT = 1772366400.0


def events(folder: Path) -> list[tuple[str, int, float, float]]:
    """Read an event file: records of length, its checksum, an event, its checksum."""
    [path] = folder.rglob("events.out.*")
    data, found = path.read_bytes(), []
    while data:
        length = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + length])
        data = data[12 + length + 4 :]
        found += [
            (value.tag, event.step, value.simple_value, event.wall_time) for value in event.summary.value
        ]
    return found


class TestScalars:
    def test_are_named_by_party_and_stand_at_their_step_or_round(self) -> None:
        assert list(scalars(ROWS)) == [
            Scalar("silo/north/loss", 4, 0.5, MOMENT),
            Scalar("silo/north/round/eval_loss", 3, 0.5, MOMENT + 1),
        ]


class TestTensorboard:
    def test_writes_an_event_file_below_the_folder(self, tmp_path: Path) -> None:
        assert exporting.to_tensorboard(JOB, scalars(ROWS), tmp_path) == 2
        assert events(tmp_path / JOB["id"]) == [
            ("silo/north/loss", 4, 0.5, MOMENT),
            ("silo/north/round/eval_loss", 3, 0.5, MOMENT + 1),
        ]

    def test_names_the_extra_that_is_missing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "tensorboardX", None)
        with pytest.raises(CommandError, match="not installed") as caught:
            exporting.to_tensorboard(JOB, scalars(ROWS), tmp_path)
        assert caught.value.remedy == "pip install 'trunkline[tensorboard]'"


class FakeServer:
    """MLflow's client as far as it is used; what it was told is kept."""

    told: list[Any] = []  # noqa: RUF012 - one per test, emptied by the fixture

    def __init__(self, tracking_uri: str) -> None:
        self.told.append(tracking_uri)

    def get_experiment_by_name(self, _: str) -> None:
        return None

    def create_experiment(self, name: str) -> str:
        self.told.append(name)
        return "7"

    def create_run(self, experiment_id: str, *, run_name: str, tags: dict[str, str]) -> Any:
        self.told.append((experiment_id, run_name, tags["trunkline.job"]))
        return type("Run", (), {"info": type("Info", (), {"run_id": "r"})})

    def log_batch(self, _: str, *, metrics: list[Any]) -> None:
        self.told += [(metric.key, metric.value, metric.timestamp, metric.step) for metric in metrics]

    def set_terminated(self, _: str, status: str) -> None:
        self.told.append(status)


class TestMlflow:
    def test_makes_a_run_with_every_number(self, monkeypatch: pytest.MonkeyPatch) -> None:
        FakeServer.told.clear()
        monkeypatch.setattr(mlflow, "MlflowClient", FakeServer)
        assert exporting.to_mlflow(JOB, scalars(ROWS), "http://127.0.0.1:1") == 2
        moment = round(MOMENT * 1000)
        assert FakeServer.told == [
            "http://127.0.0.1:1",
            "trunkline/job",
            ("7", JOB["id"], JOB["id"]),
            ("silo/north/loss", 0.5, moment, 4),
            ("silo/north/round/eval_loss", 0.5, moment + 1000, 3),
            "FINISHED",
        ]
