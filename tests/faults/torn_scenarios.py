"""What is cut before each of its writes: small files, checkpoints, agents' notes, a whole job."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from client_agent.traffic_record import Crossed, TrafficRecord
from splitlearn.control_plane.durable_file import write_durably
from splitlearn.parties import Progress, RoundFinished
from splitlearn.training import CheckpointStore
from tests.faults.power_cuts import Scenario
from tests.integration.conftest import LLAMA, Job, assert_same, job, silo_rows

SPEC = job("a", rounds=4)


class _EnoughError(Exception):
    """The first round is done."""


class SmallFile:
    """A file that is replaced."""

    def once(self, base: Path) -> None:
        """Nothing is shared."""

    def prepare(self, _: Path, folder: Path) -> None:
        write_durably(folder / "kept", b"old")

    def act(self, _: Path, folder: Path) -> None:
        write_durably(folder / "kept", b"new")

    def check(self, _: Path, folder: Path) -> None:
        assert (folder / "kept").read_bytes() in {b"old", b"new"}
        write_durably(folder / "kept", b"newer")
        assert (folder / "kept").read_bytes() == b"newer"


def _state(value: float) -> dict[str, Tensor]:
    return {"weight": torch.full((64, 64), value), "moment": torch.full((64,), -value)}


class Checkpoint:
    """A round's checkpoint, beside two earlier ones, one of which goes."""

    kept: Mapping[int, float] = MappingProxyType({1: 1.0, 2: 2.0})
    written = 3

    def once(self, base: Path) -> None:
        """Nothing is shared."""

    def prepare(self, _: Path, folder: Path) -> None:
        for number, value in self.kept.items():
            self._store(folder).save(_state(value), round_number=number)

    def act(self, _: Path, folder: Path) -> None:
        self._store(folder).save(_state(9.0), round_number=self.written)

    def check(self, base: Path, folder: Path) -> None:
        store = self._store(folder)
        for number in store.rounds():
            whole = [_state(9.0)] if number == self.written else []
            whole += [_state(self.kept[number])] if number in self.kept else []
            found = store.load(number)
            assert any(_are_same(found, each) for each in whole), f"round {number} is a mix"
        assert self.written - 1 in store.rounds(), "the round to go back to is gone"
        self.act(base, folder)
        assert _are_same(store.load(self.written), _state(9.0))
        assert not list(folder.glob(".*")), "something half-written stays"

    def _store(self, folder: Path) -> CheckpointStore:
        return CheckpointStore(folder, spec=SPEC, party="a")


class ReplacedCheckpoint(Checkpoint):
    """The checkpoint of a round that was given up and is trained again."""

    kept = MappingProxyType({1: 1.0, 2: 2.0})
    written = 2


def _are_same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


class Note:
    """An agent's record of what has crossed."""

    def once(self, base: Path) -> None:
        """Nothing is shared."""

    def prepare(self, _: Path, folder: Path) -> None:
        TrafficRecord.read(folder / "traffic.json").with_round(1, Crossed()).write(folder / "traffic.json")

    def act(self, _: Path, folder: Path) -> None:
        path = folder / "traffic.json"
        TrafficRecord.read(path).with_round(2, Crossed()).write(path)

    def check(self, base: Path, folder: Path) -> None:
        TrafficRecord.read(folder / "traffic.json").before(2)  # round 1 is there, whatever became of round 2
        self.act(base, folder)


class WholeJob:
    """Two silos and a trunk in the second of two rounds, and the results."""

    def once(self, base: Path) -> None:
        torch.manual_seed(7)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **LLAMA))
        model.save_pretrained(base / "model")
        whole = self._job(base, base / "whole")
        whole.run()
        save_file(
            {name: tensor.contiguous() for name, tensor in whole.everything().items()}, base / "expected"
        )
        begun = self._job(base, base / "begun")
        try:
            begun.run(on_progress=_after_first_round)
        except _EnoughError:
            return
        raise AssertionError("it was not interrupted")

    def prepare(self, base: Path, folder: Path) -> None:
        shutil.copytree(base / "begun", folder / "work")

    def act(self, base: Path, folder: Path) -> None:
        self._job(base, folder / "work").run(resume=True)

    def check(self, base: Path, folder: Path) -> None:
        again = self._job(base, folder / "work")
        again.run(resume=True)
        assert_same(again.everything(), load_file(base / "expected"))
        assert not list(folder.rglob(".result*")), "half a result stays"

    def _job(self, base: Path, work: Path) -> Job:
        torch.set_num_threads(1)
        data = (silo_rows("a"), silo_rows("b", longest=5))
        fields: dict[str, Any] = {
            "rounds": 2,
            "steps_per_round": 1,
            "batch_size": 1,
            "evaluation": {"every_rounds": 2, "batch_size": 5},
        }
        spec = job(*(silo.name for silo in data), **fields)
        return Job(spec, base / "model", data, work)


def _after_first_round(progress: Progress) -> None:
    if isinstance(progress, RoundFinished):
        raise _EnoughError


SCENARIOS: dict[str, Callable[[], Scenario]] = {
    "small-file": SmallFile,
    "checkpoint": Checkpoint,
    "replaced-checkpoint": ReplacedCheckpoint,
    "note": Note,
    "whole-job": WholeJob,
}
