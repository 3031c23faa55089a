"""The command as a user types it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from splitlearn.comparison.cli import app

Compare = Callable[..., Result]


@pytest.fixture
def compare(spec_path: Path, tmp_path: Path) -> Compare:
    """Run ``trunkline compare`` in this process; its runs are processes of their own."""

    def run(*arguments: str) -> Result:
        out = ("--out", str(tmp_path / "out"))
        return CliRunner().invoke(app, ["compare", str(spec_path), *out, *arguments])

    return run


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (("--modes", "hierarchical-5"), "hierarchical-5: 5 replicas are more than the 4 silos"),
            (("--modes", "serial,central"), "unknown mode 'central'"),
            (("--modes", "alone:nobody"), "no silo 'nobody' in the roster"),
        ],
    )
    def test_end_with_two_and_make_no_folder(
        self, compare: Compare, tmp_path: Path, arguments: tuple[str, ...], sentence: str
    ) -> None:
        result = compare(*arguments)
        assert result.exit_code == 2
        assert sentence in result.output
        assert not (tmp_path / "out").exists()

    def test_of_a_json_file_that_would_replace_the_data(self, compare: Compare, tmp_path: Path) -> None:
        result = compare("--json", str(tmp_path / "red.txt"))
        assert result.exit_code == 2
        assert "one of the comparison's own inputs" in result.output
        assert (tmp_path / "red.txt").read_text().startswith("the red house")

    def test_of_a_folder_with_other_files(self, compare: Compare, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out/thesis.txt").touch()
        result = compare("--modes", "serial")
        assert result.exit_code == 5
        assert "thesis.txt" in result.output


class TestWithoutModes:
    @pytest.mark.parametrize("silos", [("red", "green"), ("red", "green", "blue")])
    def test_what_so_few_silos_cannot_have_is_left_out_with_a_note(
        self, compare: Compare, spec_path: Path, tmp_path: Path, silos: tuple[str, ...]
    ) -> None:
        data = ", ".join(f"{silo}: {silo}.txt" for silo in silos)
        lines = spec_path.read_text().replace("silo_blocks: averaged\n", "").splitlines()
        spec_path.write_text(
            "\n".join(f"data: {{{data}}}" if line[:5] == "data:" else line for line in lines)
        )
        (tmp_path / "out").mkdir()
        (tmp_path / "out/thesis.txt").touch()  # ends the command when all is planned, and nothing trained
        result = compare()
        assert result.exit_code == 5, result.output
        assert f"Note: hierarchical-4 is left out: more replicas than the {len(silos)} silos" in result.stderr


class TestImport:
    def test_of_the_command_loads_no_torch(self) -> None:
        program = "import sys, splitlearn.comparison.cli; sys.exit('torch' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0  # noqa: S603 - ours


@pytest.mark.slow
class TestCompare:
    def test_trains_and_tells_and_does_not_repeat(self, compare: Compare, tmp_path: Path) -> None:
        arguments = ("--modes", "centralised,client-batching,alone:red", "--seeds", "1", "--parallel", "1")
        first = compare(*arguments, "--json", str(tmp_path / "numbers.json"))
        assert first.exit_code == 0, first.output
        numbers = json.loads((tmp_path / "numbers.json").read_text())
        assert [run["mode"] for run in numbers["runs"]] == ["centralised", "client-batching", "alone:red"]
        assert {run["seed"] for run in numbers["runs"]} == {3}
        assert (tmp_path / "out/report.md").read_text().startswith("# houses: ")
        assert "<svg" in (tmp_path / "out/report.html").read_text()
        assert "| client-batching |" in first.stdout
        assert "[3/3]" in first.stderr
        again = compare(*arguments)
        assert "3 of 3 runs were finished before and are kept" in again.stderr
        assert json.loads((tmp_path / "out/comparison.json").read_text()) == numbers
