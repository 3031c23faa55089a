"""The other replicas of a trunk, as a dispatched worker meets them: by what they have committed."""

import asyncio
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from splitlearn.errors import StorageError
from splitlearn.spec import JobSpec
from splitlearn.training import contribution
from worker.checkpoints import CommittedPeers

SPEC = JobSpec.parse(
    {
        "model": "m",
        "silos": [{"name": name, "dataset": "d"} for name in "ab"],
        "schedule": "hierarchical",
        "replicas": 2,
        "replica_moments": "kept",
    }
)


@pytest.fixture
def peers(tmp_path: Path) -> CommittedPeers:
    """Two contributions to the third round, as the second replica sees them."""
    paths = []
    for replica, (value, num_tokens) in enumerate(((1.0, 10), (4.0, 20))):
        state = {"parameter/w": torch.tensor([value]), "optimizer/exp_avg/w": torch.tensor([value])}
        paths.append(tmp_path / str(replica))
        save_file(contribution(state, num_tokens=num_tokens), paths[-1])
    return CommittedPeers(SPEC, 3, 1, tuple(paths))


def test_give_the_average_and_what_is_the_replicas_own(peers: CommittedPeers) -> None:
    state = asyncio.run(peers.state_after(3))
    assert {key: float(value) for key, value in state.items()} == {
        "parameter/w": 3.0,
        "optimizer/exp_avg/w": 4.0,
    }


def test_refuse_a_round_that_they_are_not_at(peers: CommittedPeers) -> None:
    """A silo that lost its disk is behind all replicas: nobody has the average that it would begin with."""
    with pytest.raises(
        StorageError, match="no checkpoint after round 2, the trunk's replicas are at round 3"
    ):
        asyncio.run(peers.state_after(2))


def test_name_a_contribution_that_is_torn(peers: CommittedPeers) -> None:
    peers.paths[0].write_bytes(peers.paths[0].read_bytes()[:-3])
    with pytest.raises(StorageError, match="the checkpoint of round 3 cannot be read"):
        asyncio.run(peers.state_after(3))
