"""``--json`` never replaces a file that is the user's, or the run's."""

import os
from pathlib import Path

import pytest

from splitlearn.errors import SpecError
from splitlearn.simulation.demo_options import DemoOptions
from splitlearn.simulation.json_place import refuse_taken


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.txt"
    path.write_text("a row\n")
    return path


class TestData:
    def test_refuses_a_data_file(self, rows: Path) -> None:
        with pytest.raises(SpecError, match="is the data file"):
            refuse_taken(DemoOptions(data=(rows,), json_path=rows.parent / "." / "rows.txt"))

    def test_refuses_a_link_to_one(self, rows: Path) -> None:
        soft, hard = rows.with_name("soft.json"), rows.with_name("hard.json")
        soft.symlink_to(rows)
        os.link(rows, hard)
        for path in (soft, hard):
            with pytest.raises(SpecError, match="is the data file"):
                refuse_taken(DemoOptions(data=(rows,), json_path=path))

    def test_takes_a_file_beside_it(self, rows: Path) -> None:
        refuse_taken(DemoOptions(data=(rows,), json_path=rows.with_name("result.json")))


class TestModel:
    def test_refuses_a_file_in_its_folder(self, tmp_path: Path) -> None:
        (tmp_path / "model").mkdir()
        options = DemoOptions(model=str(tmp_path / "model"), json_path=tmp_path / "model" / "config.json")
        with pytest.raises(SpecError, match="is in the model's folder"):
            refuse_taken(options)

    def test_refuses_what_its_folder_links_to(self, tmp_path: Path) -> None:
        (tmp_path / "model").mkdir()
        (tmp_path / "blob").write_text("{}")
        (tmp_path / "model" / "config.json").symlink_to(tmp_path / "blob")
        for path in (tmp_path / "blob", tmp_path / "model" / "config.json"):
            with pytest.raises(SpecError, match="is in the model's folder"):
                refuse_taken(DemoOptions(model=str(tmp_path / "model"), json_path=path))


class TestRun:
    @pytest.mark.parametrize(
        "name",
        [
            *("job.json", "trunkline.lock", "history.jsonl", "result.json", "silos", "models", "platform"),
            *("silos/x.json", "models/x.json", "own/x.json", ".reference", "."),
        ],
    )
    def test_refuses_what_the_run_uses(self, tmp_path: Path, name: str) -> None:
        out = tmp_path / "run"
        with pytest.raises(SpecError, match=r"--json .* is .*; give --json another path"):
            refuse_taken(DemoOptions(out=out, json_path=out / name))

    def test_refuses_a_file_where_the_run_needs_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(SpecError, match="is where the run's folder"):
            refuse_taken(DemoOptions(out=tmp_path / "a" / "run", json_path=tmp_path / "a"))

    def test_takes_another_name_in_its_folder(self, tmp_path: Path) -> None:
        refuse_taken(DemoOptions(out=tmp_path, json_path=tmp_path / "numbers.json"))
