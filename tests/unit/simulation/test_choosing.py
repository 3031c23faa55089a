"""What a schedule that is left open becomes in one process."""

from types import SimpleNamespace
from typing import Any

import pytest

from splitlearn.errors import UnservedError
from splitlearn.planning import Role, Training, estimate_memory, with_schedule
from splitlearn.simulation import Federation
from splitlearn.simulation.choosing import choose_here, memory_of_machine
from tests.unit.planning.made_up import cut_of, job, llama

AUTO = job(4, schedule="auto")


def trunk_bytes(schedule: str) -> int:
    folder, spec = llama(), with_schedule(AUTO, schedule)
    assert spec is not None
    return estimate_memory(folder, cut_of(folder), Role.TRUNK, Training.of(spec, Role.TRUNK)).total


def test_all_at_once_where_there_is_room() -> None:
    choice = choose_here(AUTO, llama(), memory_bytes=1 << 34)
    assert choice.spec == with_schedule(AUTO, "client-batching")
    assert choice.reason.startswith("1 worker; a round takes about ")


def test_turn_by_turn_where_there_is_not() -> None:
    room = (trunk_bytes("serial") + trunk_bytes("client-batching")) // 2
    assert choose_here(AUTO, llama(), memory_bytes=room).spec.schedule == "serial"


def test_one_process_is_one_worker_and_has_no_replicas() -> None:
    choice = choose_here(job(4, schedule="auto", replicas=2), llama())
    assert choice.spec.replicas == 1


def test_the_machine_tells_its_memory() -> None:
    assert memory_of_machine() > 1 << 20


class TestFederation:
    @pytest.fixture
    def data(self) -> list[Any]:
        return [SimpleNamespace(name=silo.name) for silo in AUTO.silos]

    def test_runs_what_was_chosen_and_keeps_why(
        self, data: list[Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("splitlearn.planning.ModelFolder.open", lambda _: llama())
        federation = Federation(AUTO, model_folder=tmp_path, data=data, work_dir=tmp_path)
        assert federation.choice is not None
        assert federation._spec == federation.choice.spec

    def test_what_is_not_served_besides_is_refused(
        self, data: list[Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("splitlearn.planning.ModelFolder.open", lambda _: llama())
        spec = job(4, schedule="auto", release="project")
        with pytest.raises(UnservedError, match="release"):
            Federation(spec, model_folder=tmp_path, data=data, work_dir=tmp_path)
