"""Where a result may be written."""

import json
import os
import stat
from pathlib import Path

import pytest

from splitlearn.errors import StorageError
from splitlearn.simulation.json_files import refuse_unwritable, write_json


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


class TestWriteJson:
    def test_replaces_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "result.json"
        path.write_text("old")

        write_json(path, {"status": "completed"})

        assert json.loads(path.read_text()) == {"status": "completed"}

    def test_leaves_nothing_beside_it(self, tmp_path: Path) -> None:
        write_json(tmp_path / "result.json", {})

        assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]

    def test_writes_where_a_link_leads(self, tmp_path: Path) -> None:
        target, link = tmp_path / "kept" / "result.json", tmp_path / "latest.json"
        target.parent.mkdir()
        link.symlink_to(target)

        write_json(link, {"status": "completed"})

        assert link.is_symlink()
        assert json.loads(target.read_text()) == {"status": "completed"}

    def test_never_replaces_a_pipe(self, pipe: Path) -> None:
        with pytest.raises(StorageError, match="device, pipe or socket"):
            write_json(pipe, {})

        assert stat.S_ISFIFO(pipe.lstat().st_mode)


class TestRefuseUnwritable:
    def test_refuses_a_pipe(self, pipe: Path) -> None:
        with pytest.raises(StorageError, match="give the path of a regular file"):
            refuse_unwritable(pipe)

    def test_refuses_a_link_to_a_pipe(self, pipe: Path) -> None:
        link = pipe.with_name("link")
        link.symlink_to(pipe)

        with pytest.raises(StorageError, match="device, pipe or socket"):
            refuse_unwritable(link)

    def test_refuses_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="is a folder"):
            refuse_unwritable(tmp_path)

    def test_refuses_a_ring_of_links(self, tmp_path: Path) -> None:
        first, second = tmp_path / "first", tmp_path / "second"
        first.symlink_to(second)
        second.symlink_to(first)

        with pytest.raises(StorageError, match="first"):
            refuse_unwritable(first)
