from pathlib import Path

import pytest

from client_agent.data import Dataset, DatasetRegistry, TaskKind, UnknownDatasetError
from splitlearn.errors import DataError, StorageError
from splitlearn.records import ColumnMapping, format_of
from tests.unit.client_agent.conftest import Write


@pytest.fixture
def registry(state_dir: Path) -> DatasetRegistry:
    return DatasetRegistry(state_dir)


def described(path: Path, *, name: str = "notes", task: TaskKind = "any") -> Dataset:
    return Dataset.read(name, path, data_format=format_of(path), columns=ColumnMapping(), task=task)


class TestRegistry:
    def test_keeps_what_was_added(self, registry: DatasetRegistry, state_dir: Path, write: Write) -> None:
        dataset = described(write("a.txt", "x\ny\n"))
        registry.put(dataset)
        assert DatasetRegistry(state_dir).get("notes") == dataset

    def test_lists_by_name(self, registry: DatasetRegistry, write: Write) -> None:
        path = write("a.txt", "x\n")
        for name in ("b", "a"):
            registry.put(described(path, name=name))
        assert [dataset.name for dataset in registry.all()] == ["a", "b"]

    def test_refuses_a_taken_name(self, registry: DatasetRegistry, write: Write) -> None:
        dataset = described(write("a.txt", "x\n"))
        registry.put(dataset)
        with pytest.raises(DataError, match="exists already"):
            registry.put(dataset)

    def test_replaces_on_request(self, registry: DatasetRegistry, write: Write) -> None:
        registry.put(described(write("a.txt", "x\n")))
        registry.put(described(write("b.txt", "x\ny\n")), replace=True)
        assert registry.get("notes").num_rows == 2

    def test_unknown_name_says_which_there_are(self, registry: DatasetRegistry, write: Write) -> None:
        registry.put(described(write("a.txt", "x\n")))
        with pytest.raises(UnknownDatasetError, match="'other' here; there are: notes"):
            registry.get("other")

    def test_removed_is_gone_and_its_file_stays(self, registry: DatasetRegistry, write: Write) -> None:
        path = write("a.txt", "x\n")
        registry.put(described(path))
        registry.remove("notes")
        assert (registry.all(), path.exists()) == ([], True)

    def test_removing_an_unknown_name_is_refused(self, registry: DatasetRegistry) -> None:
        with pytest.raises(UnknownDatasetError):
            registry.remove("notes")

    def test_version_moves_with_every_change(self, registry: DatasetRegistry, write: Write) -> None:
        versions = [registry.version()]
        registry.put(described(write("a.txt", "x\n")))
        versions.append(registry.version())
        registry.remove("notes")
        versions.append(registry.version())
        assert len(set(versions)) == 3

    def test_is_readable_by_its_owner_only(
        self, registry: DatasetRegistry, state_dir: Path, write: Write
    ) -> None:
        registry.put(described(write("a.txt", "x\n")))
        assert (state_dir / "datasets.json").stat().st_mode & 0o077 == 0

    def test_damaged_list_is_refused_with_its_path(self, registry: DatasetRegistry, state_dir: Path) -> None:
        state_dir.mkdir()
        (state_dir / "datasets.json").write_text("{")
        with pytest.raises(StorageError, match=r"datasets\.json"):
            registry.all()


class TestDataset:
    def test_announces_nothing_but_name_task_count_and_digest(self, write: Write) -> None:
        said = described(write("secret-name.jsonl", '{"column": "private"}\n')).announcement()
        assert said.model_dump() == {
            "name": "notes",
            "task": "any",
            "num_rows": 1,
            "schema_digest": said.schema_digest,
        }

    def test_notices_another_file_in_its_place(self, write: Write) -> None:
        dataset = described(write("a.txt", "x\n"))
        write("a.txt", "x\ny\n")
        assert dataset.has_changed

    def test_is_unchanged_after_the_reading(self, write: Write) -> None:
        assert not described(write("a.txt", "x\n")).has_changed

    def test_read_again_counts_anew(self, write: Write) -> None:
        dataset = described(write("a.txt", "x\n"))
        write("a.txt", "x\ny\nz\n")
        assert dataset.read_again().num_rows == 3

    def test_refuses_a_task_of_another_kind(self, write: Write) -> None:
        with pytest.raises(DataError, match="is for sft, the job's task is choice"):
            described(write("a.txt", "x\n"), task="sft").refuse_other_task("choice")

    def test_serves_every_task_unless_told_otherwise(self, write: Write) -> None:
        assert described(write("a.txt", "x\n")).serves("choice")
