from pathlib import Path

import pytest

from client_agent.copying import copy_result
from splitlearn.errors import StorageError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "result").mkdir()
    (tmp_path / "result/config.json").write_text("{}")
    return tmp_path / "result"


class TestCopyResult:
    def test_copies_every_file(self, source: Path, tmp_path: Path) -> None:
        copy_result(source, tmp_path / "deep/target")
        assert (tmp_path / "deep/target/config.json").read_text() == "{}"

    def test_fills_an_empty_folder(self, source: Path, tmp_path: Path) -> None:
        (tmp_path / "target").mkdir()
        copy_result(source, tmp_path / "target")
        assert [path.name for path in (tmp_path / "target").iterdir()] == ["config.json"]

    def test_refuses_a_taken_place(self, source: Path, tmp_path: Path) -> None:
        (tmp_path / "target").mkdir()
        (tmp_path / "target/precious").touch()
        with pytest.raises(StorageError, match="exists already"):
            copy_result(source, tmp_path / "target")

    def test_refuses_a_job_without_result(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="no result"):
            copy_result(tmp_path / "result", tmp_path / "target")

    def test_leaves_nothing_behind_where_it_cannot_write(self, source: Path, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(StorageError, match="cannot write"):
            copy_result(source, tmp_path / "file/target")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "result"]
