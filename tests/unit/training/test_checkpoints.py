import json
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from splitlearn.errors import StorageError
from splitlearn.spec import JobSpec
from splitlearn.training import CheckpointStore

SPEC = JobSpec.parse({"model": "m", "silos": [{"name": "a", "dataset": "d"}], "rounds": 9})


def state(value: float) -> dict[str, Tensor]:
    return {"parameter/w": torch.full((300, 100), value), "optimizer/step/w": torch.tensor(value)}


def store(folder: Path, *, spec: JobSpec = SPEC, party: str = "a", reserve_bytes: int = 0) -> CheckpointStore:
    return CheckpointStore(folder, spec=spec, party=party, reserve_bytes=reserve_bytes)


@contextmanager
def files_limited_to(num_bytes: int) -> Iterator[None]:
    """Let the operating system refuse to write longer files, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


class TestSave:
    def test_returns_bit_for_bit(self, tmp_path: Path) -> None:
        saved = {"odd": torch.tensor([float("nan"), -0.0, 1e-45]), "none": torch.zeros(0, 3)}
        store(tmp_path).save(saved, round_number=1)
        loaded = store(tmp_path).load(1)
        assert loaded.keys() == saved.keys()
        assert all(loaded[key].numpy().tobytes() == value.numpy().tobytes() for key, value in saved.items())

    def test_of_frozen_blocks_holds_no_tensor(self, tmp_path: Path) -> None:
        store(tmp_path).save({}, round_number=1)
        assert store(tmp_path).load(1) == {}

    def test_keeps_the_last_two_rounds(self, tmp_path: Path) -> None:
        for round_number in (1, 2, 3, 4):
            store(tmp_path).save(state(round_number), round_number=round_number)
        assert store(tmp_path).rounds() == [3, 4]
        assert store(tmp_path).last_round() == 4

    def test_deletes_the_rounds_of_a_future_that_was_given_up(self, tmp_path: Path) -> None:
        """The party went back to round 1 with others; its old round 4 must not outlive the new one."""
        for round_number in (3, 4, 1):
            store(tmp_path).save(state(round_number), round_number=round_number)
        assert store(tmp_path).rounds() == [1]

    def test_replaces_a_round_that_is_repeated(self, tmp_path: Path) -> None:
        for value in (1.0, 2.0):
            store(tmp_path).save(state(value), round_number=1)
        assert torch.equal(store(tmp_path).load(1)["parameter/w"], state(2.0)["parameter/w"])
        assert [path.name for path in tmp_path.iterdir()] == ["round-00000001"]

    def test_says_what_it_is(self, tmp_path: Path) -> None:
        manifest = json.loads((store(tmp_path).save(state(1), round_number=3) / "manifest.json").read_text())
        assert manifest["spec_digest"] == SPEC.digest().hex()
        assert (manifest["party"], manifest["round"], manifest["global_step"]) == ("a", 3, 30)

    def test_clears_what_a_killed_process_left(self, tmp_path: Path) -> None:
        (tmp_path / ".round-00000007.writing").mkdir()
        store(tmp_path).save(state(1), round_number=8)
        assert [path.name for path in tmp_path.iterdir()] == ["round-00000008"]


class TestNoSpace:
    def test_is_refused_before_anything_is_written(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match=rf"{tmp_path}/round-00000001.* \d+ bytes needed"):
            store(tmp_path, reserve_bytes=1 << 62).save(state(1), round_number=1)
        assert list(tmp_path.iterdir()) == []

    def test_a_disk_that_fills_up_leaves_the_earlier_rounds_alone(self, tmp_path: Path) -> None:
        store(tmp_path).save(state(1), round_number=1)
        with (
            files_limited_to(10_000),
            pytest.raises(StorageError, match=r"round-00000002 \(\d+ bytes needed\)"),
        ):
            store(tmp_path).save(state(2), round_number=2)
        assert [path.name for path in tmp_path.iterdir()] == ["round-00000001"]
        assert store(tmp_path).load(1).keys() == state(1).keys()

    def test_a_folder_that_cannot_be_made_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(StorageError, match="file/a"):
            store(tmp_path / "file" / "a").save(state(1), round_number=1)


class TestLoad:
    @pytest.fixture
    def saved(self, tmp_path: Path) -> Path:
        return store(tmp_path).save(state(1), round_number=1)

    def test_refuses_a_round_that_is_not_there(self, tmp_path: Path) -> None:
        assert store(tmp_path / "none").last_round() == 0
        with pytest.raises(StorageError, match="round-00000001"):
            store(tmp_path).load(1)

    def test_refuses_a_torn_file(self, saved: Path) -> None:
        whole = (saved / "state.safetensors").read_bytes()
        (saved / "state.safetensors").write_bytes(whole[:-1])
        with pytest.raises(StorageError, match="round-00000001 is torn"):
            store(saved.parent).load(1)

    def test_refuses_a_changed_bit(self, saved: Path) -> None:
        changed = bytearray((saved / "state.safetensors").read_bytes())
        changed[-1] ^= 1
        (saved / "state.safetensors").write_bytes(changed)
        with pytest.raises(StorageError, match="torn"):
            store(saved.parent).load(1)

    @pytest.mark.parametrize("text", ["", "{", "{}", '{"version": 2}'])
    def test_refuses_a_broken_manifest(self, saved: Path, text: str) -> None:
        (saved / "manifest.json").write_text(text)
        with pytest.raises(StorageError, match="round-00000001 has no sound manifest"):
            store(saved.parent).load(1)

    def test_refuses_a_missing_state(self, saved: Path) -> None:
        (saved / "state.safetensors").unlink()
        with pytest.raises(StorageError, match="round-00000001"):
            store(saved.parent).load(1)

    def test_refuses_another_jobs_checkpoint(self, saved: Path) -> None:
        other = SPEC.model_copy(update={"seed": 1})
        with pytest.raises(StorageError, match="specification"):
            store(saved.parent, spec=other).load(1)

    def test_refuses_another_partys_checkpoint(self, saved: Path) -> None:
        with pytest.raises(StorageError, match=r"'a'.*'b'"):
            store(saved.parent, party="b").load(1)

    def test_refuses_a_renamed_round(self, saved: Path) -> None:
        saved.rename(saved.with_name("round-00000002"))
        with pytest.raises(StorageError, match="round 1"):
            store(saved.parent).load(2)
