"""The meeting place of a process's replicas, without a trunk."""

import asyncio
from pathlib import Path

import pytest
import torch

from splitlearn.errors import TrainingError
from splitlearn.simulation.replicas import ReplicaHall
from splitlearn.spec import JobSpec
from splitlearn.training import CheckpointStore, contribution
from tests.unit.exchange.conftest import run

SPEC = JobSpec.parse(
    {
        "model": "m",
        "silos": [{"name": name, "dataset": "d"} for name in "ab"],
        "schedule": "hierarchical",
        "replicas": 2,
    }
)


@pytest.fixture
def stores(tmp_path: Path) -> list[CheckpointStore]:
    """Two replicas' checkpoints, of which the first is a round ahead."""
    made = [CheckpointStore(tmp_path / str(n), spec=SPEC, party=f"trunk-{n}") for n in range(2)]
    for replica, number, value, tokens in ((0, 1, 1.0, 10), (0, 2, 9.0, 10), (1, 1, 4.0, 20)):
        state = contribution({"parameter/w": torch.tensor([value])}, num_tokens=tokens)
        made[replica].save(state, round_number=number)
    return made


class TestReplicaHall:
    def test_gives_out_the_average_once_all_have_committed(self, stores: list[CheckpointStore]) -> None:
        """The one that is ahead waits for the round that the other trains meanwhile."""

        async def test() -> None:
            hall = ReplicaHall(SPEC, stores)
            ahead = asyncio.create_task(hall.seat(0).state_after(2))
            behind = await hall.seat(1).state_after(1)
            assert float(behind["parameter/w"]) == 3.0
            assert not ahead.done()
            stores[1].save(contribution({"parameter/w": torch.tensor([0.0])}, num_tokens=80), round_number=2)
            assert float((await hall.seat(1).state_after(2))["parameter/w"]) == 1.0
            assert float((await ahead)["parameter/w"]) == 1.0

        run(test())

    def test_lets_nobody_wait_for_a_replica_that_has_failed(self, stores: list[CheckpointStore]) -> None:
        async def fail() -> None:
            raise OSError("the disk is gone")

        async def test() -> None:
            hall = ReplicaHall(SPEC, stores)
            waiting = asyncio.create_task(hall.seat(0).state_after(2))
            with pytest.raises(OSError, match="the disk is gone"):
                await hall.present(1, fail)()
            with pytest.raises(TrainingError, match="replica 1 of the trunk ended before"):
                await waiting

        run(test())
