"""The average of a trunk's replicas: made once of what they committed, and taken up by each of them."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file, save_file

from splitlearn.control_plane.schemas import BlobRef, RoundToAverage
from splitlearn.errors import StorageError
from splitlearn.spec import JobSpec
from splitlearn.training import contribution
from worker import stored_files
from worker.averages import CommittedPeers, average_contributions, write_average
from worker.home import Home

SPEC = JobSpec.parse(
    {
        "model": "m",
        "silos": [{"name": name, "dataset": "d"} for name in "ab"],
        "schedule": "hierarchical",
        "replicas": 2,
        "replica_moments": "kept",
    }
)


def write_contribution(path: Path, value: float, *, num_tokens: int) -> Path:
    state = {"parameter/w": torch.tensor([value]), "optimizer/exp_avg/w": torch.tensor([value])}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(contribution(state, num_tokens=num_tokens), path)
    return path


def ref(path: Path) -> BlobRef:
    content = path.read_bytes()
    return BlobRef(digest=hashlib.sha256(content).hexdigest(), num_bytes=len(content))


class TestCommittedPeers:
    @pytest.fixture
    def peers(self, tmp_path: Path) -> CommittedPeers:
        """The third round, as a replica goes on from it."""
        average = tmp_path / "average"
        save_file({"parameter/w": torch.tensor([3.0])}, average)
        own = write_contribution(tmp_path / "own", 4.0, num_tokens=20)
        return CommittedPeers(SPEC, 3, average, own)

    def test_give_the_average_and_what_is_the_replicas_own(self, peers: CommittedPeers) -> None:
        state = asyncio.run(peers.state_after(3))
        assert {key: float(value) for key, value in state.items()} == {
            "parameter/w": 3.0,
            "optimizer/exp_avg/w": 4.0,
        }

    def test_refuse_a_round_that_they_are_not_at(self, peers: CommittedPeers) -> None:
        """A silo that lost its disk is behind: nobody has the average that it would begin with."""
        with pytest.raises(
            StorageError, match="no checkpoint after round 2, the trunk's replicas are at round 3"
        ):
            asyncio.run(peers.state_after(2))

    @pytest.mark.parametrize("torn", ["average", "own"])
    def test_name_a_file_that_is_torn(self, torn: str, peers: CommittedPeers, tmp_path: Path) -> None:
        (tmp_path / torn).write_bytes((tmp_path / torn).read_bytes()[:-3])
        with pytest.raises(StorageError, match="the checkpoint of round 3 cannot be read"):
            asyncio.run(peers.state_after(3))


class Store:
    """An artifact store of some files, and a home that asks it; it counts what is downloaded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.files: dict[str, bytes] = {}
        self.downloaded: list[str] = []
        monkeypatch.setattr(stored_files, "fetch_blob", self.fetch)

    @property
    def home(self) -> Home:
        return cast("Home", self)

    async def ask(self, what: Callable[[Any], Awaitable[Any]]) -> Any:
        return await what(None)

    async def fetch(self, _: Any, blob: BlobRef, path: Path) -> Path:
        self._download(blob.digest, path)
        return path

    def _download(self, digest: str, path: Path) -> None:
        if not path.exists():
            self.downloaded.append(digest)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.files[digest])

    def put(self, path: Path) -> BlobRef:
        blob = ref(path)
        self.files[blob.digest] = path.read_bytes()
        return blob


class TestAverageContributions:
    @pytest.fixture
    def store(self, monkeypatch: pytest.MonkeyPatch) -> Store:
        return Store(monkeypatch)

    @pytest.fixture
    def meeting(self, store: Store, tmp_path: Path) -> RoundToAverage:
        paths = [
            write_contribution(tmp_path / "elsewhere" / str(replica), value, num_tokens=num_tokens)
            for replica, (value, num_tokens) in enumerate(((1.0, 10), (4.0, 20)))
        ]
        return RoundToAverage(round=3, contributions=tuple(store.put(path) for path in paths))

    def average(self, store: Store, meeting: RoundToAverage, folder: Path) -> Path:
        averaged = asyncio.run(average_contributions(store.home, meeting, SPEC, folder))
        return write_average(averaged.state, folder)

    def test_weights_them_by_tokens(self, store: Store, meeting: RoundToAverage, tmp_path: Path) -> None:
        path = self.average(store, meeting, tmp_path / "job")
        assert {key: float(value) for key, value in load_file(path).items()} == {"parameter/w": 3.0}
        assert store.downloaded == [blob.digest for blob in meeting.contributions]
        assert not list((tmp_path / "job" / "contributions").iterdir()), "they are in the store"

    def test_has_the_same_bytes_each_time_under_their_digest(
        self, store: Store, meeting: RoundToAverage, tmp_path: Path
    ) -> None:
        first = self.average(store, meeting, tmp_path / "one")
        second = self.average(store, meeting, tmp_path / "other")
        assert first.name == second.name == ref(first).digest

    def test_keeps_the_newest_alone(self, store: Store, meeting: RoundToAverage, tmp_path: Path) -> None:
        first = self.average(store, meeting, tmp_path / "job")
        other = meeting.model_copy(update={"contributions": meeting.contributions[::-1]})
        (tmp_path / "job" / "averages" / first.name).rename(tmp_path / "job" / "averages" / "older")
        assert [self.average(store, other, tmp_path / "job")] == list(
            (tmp_path / "job" / "averages").iterdir()
        )

    def test_takes_what_was_trained_here_from_the_disk(
        self, store: Store, meeting: RoundToAverage, tmp_path: Path
    ) -> None:
        saved = tmp_path / "job" / "replica-1" / "checkpoints" / "round-00000003" / "state.safetensors"
        write_contribution(saved, 4.0, num_tokens=20)
        self.average(store, meeting, tmp_path / "job")
        assert store.downloaded == [meeting.contributions[0].digest]
        assert saved.exists()

    def test_does_not_take_another_attempts_round_for_it(
        self, store: Store, meeting: RoundToAverage, tmp_path: Path
    ) -> None:
        saved = tmp_path / "job" / "replica-1" / "checkpoints" / "round-00000003" / "state.safetensors"
        write_contribution(saved, 5.0, num_tokens=20)
        assert float(load_file(self.average(store, meeting, tmp_path / "job"))["parameter/w"]) == 3.0
        assert len(store.downloaded) == 2

    def test_refuses_a_round_that_not_all_have_committed(
        self, store: Store, meeting: RoundToAverage, tmp_path: Path
    ) -> None:
        part = meeting.model_copy(update={"contributions": meeting.contributions[:1]})
        with pytest.raises(StorageError, match="round 3 has 1 contributions, the job has 2 replicas"):
            self.average(store, part, tmp_path / "job")
