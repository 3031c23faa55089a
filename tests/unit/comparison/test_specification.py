from pathlib import Path

import pytest

from splitlearn.comparison.modes import USUAL_MODES, parse_modes
from splitlearn.comparison.plan import plan_runs
from splitlearn.comparison.source import Source
from splitlearn.comparison.specification import read_comparison
from splitlearn.errors import DataError, ModelError, SpecError
from splitlearn.records import Layout
from splitlearn.spec import ChoiceTask, CutSpec

ROOT = Path(__file__).parents[3]


def changed(path: Path, *, without: str = "", **fields: str) -> Path:
    """Write another specification beside this one, some lines replaced or taken out."""
    names = {*fields, *without.split()}
    lines = [line for line in path.read_text().splitlines() if line.partition(":")[0] not in names]
    other = path.with_name("other.yaml")
    other.write_text(
        "\n".join([*lines, *(f"{name}: {value}" for name, value in fields.items() if value)]) + "\n"
    )
    return other


class TestReadComparison:
    def test_makes_the_roster_of_the_files(self, spec_path: Path, model: Path) -> None:
        found = read_comparison(spec_path)
        assert [silo.name for silo in found.base.silos] == ["red", "green", "blue", "grey"]
        assert found.base.name == "houses"
        assert found.base.seed == 3
        assert found.model_folder == model
        assert found.source.files[0] == spec_path.parent / "red.txt"

    def test_takes_paths_from_the_root(self, spec_path: Path, tmp_path: Path) -> None:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        moved = spec_path.rename(elsewhere / "houses.yaml")
        assert read_comparison(moved, root=tmp_path).source.files[0] == tmp_path / "red.txt"
        with pytest.raises(DataError, match=r"houses\.yaml:4: no file .*red\.txt"):
            read_comparison(moved)

    def test_gives_every_silo_the_cut(self, spec_path: Path) -> None:
        found = read_comparison(changed(spec_path, cut="{bottom_layers: 0, top_layers: 1}"))
        assert {silo.cut for silo in found.base.silos} == {CutSpec(bottom_layers=0, top_layers=1)}

    def test_averages_the_blocks_of_four_silos_unless_it_says_otherwise(self, spec_path: Path) -> None:
        left_open = read_comparison(changed(spec_path, without="silo_blocks"))
        assert left_open.base.silo_blocks == "averaged"
        assert read_comparison(changed(spec_path, silo_blocks="frozen")).base.silo_blocks == "frozen"

    def test_tells_that_averaging_loras_halves_is_not_averaging_their_product(self, spec_path: Path) -> None:
        (note,) = read_comparison(changed(spec_path, adapter="{kind: lora}")).notes
        assert "freeze_a" in note
        assert read_comparison(spec_path).notes == ()

    def test_keeps_the_turns_for_the_serial_mode(self, spec_path: Path) -> None:
        found = read_comparison(changed(spec_path, turn_steps="1"))
        serial, batching = parse_modes(["serial", "client-batching"], silos=found.source.silos)
        assert found.job(serial, seed=3).turn_steps == 1
        assert found.job(batching, seed=3).turn_steps is None

    def test_takes_task_and_layout_of_a_preset(self, spec_path: Path) -> None:
        found = read_comparison(changed(spec_path, preset="multirc"))
        assert isinstance(found.base.task, ChoiceTask)
        assert found.source.layout is Layout.MULTIRC

    @pytest.mark.parametrize(
        ("fields", "sentence"),
        [
            ({"schedule": "serial"}, "other.yaml:11: schedule: every schedule is trained"),
            ({"silos": "[a]"}, "other.yaml:11: silos: the silos are those of data or split"),
            ({"rouns": "3"}, "other.yaml:11: rouns: unknown field"),
            ({"rounds": "0"}, "other.yaml:10: rounds: Input should be greater than or equal to 1; got 0"),
            ({"adapter": "{kind: lora, r: 0}"}, "other.yaml:10: adapter.lora.r: Input should be"),
            ({"data": "{red: red.txt, Green: green.txt}"}, "other.yaml:10: data.Green: String should match"),
            ({"data": ""}, "other.yaml: neither data nor split"),
            ({"split": "{file: red.txt, silos: [a, b]}"}, "other.yaml: both data and split"),
            ({"preset": "none"}, "other.yaml:11: preset: no preset 'none'"),
            ({"preset": "sst-2", "task": "{kind: causal-lm}"}, "other.yaml:11: preset: task is given, too"),
        ],
    )
    def test_refuses_with_file_and_line(self, spec_path: Path, fields: dict[str, str], sentence: str) -> None:
        with pytest.raises(SpecError) as caught:
            read_comparison(changed(spec_path, **fields))
        assert sentence in caught.value.message

    def test_refuses_a_model_that_is_not_there(self, spec_path: Path) -> None:
        with pytest.raises(ModelError, match=r"other\.yaml:10: model: no folder .*absent"):
            read_comparison(changed(spec_path, model="absent"))

    @pytest.mark.parametrize(
        "path", [*sorted((ROOT / "bench/parity").glob("*.yaml"))], ids=lambda path: path.stem
    )
    def test_reads_the_parity_runs(self, path: Path, test_data: Path) -> None:
        found = read_comparison(path, root=test_data)
        modes = parse_modes(USUAL_MODES, silos=found.source.silos)
        assert len(plan_runs(found, modes, num_seeds=5, threads=1)) == 5 * 9

    def test_reads_the_example_of_the_documentation(self, tmp_path: Path, model: Path) -> None:
        (tmp_path / "models").mkdir()
        (tmp_path / "models/my-model").symlink_to(model)
        (tmp_path / "data").mkdir()
        for name in ("harbour.jsonl", "hillside.csv", "riverside.tsv", "valley.jsonl"):
            (tmp_path / "data" / name).touch()
        found = read_comparison(ROOT / "docs/examples/compare.yaml", root=tmp_path)
        assert len(found.base.silos) == 4


class TestSource:
    @pytest.mark.parametrize(
        ("fields", "sentence"),
        [
            ({"file": "f", "silos": ["a", "b"], "shares": [1]}, "1 for 2 silos"),
            ({"file": "f", "silos": ["a", "a"]}, "listed twice"),
            ({"file": "f", "silos": ["a", "b"], "skew": {}}, "names neither a column nor words"),
        ],
    )
    def test_refuses_a_split_that_is_none(self, fields: dict[str, object], sentence: str) -> None:
        with pytest.raises(ValueError, match=sentence):
            Source.model_validate({"split": fields})

    def test_refuses_two_names_of_one_column(self) -> None:
        with pytest.raises(ValueError, match="one column has two names"):
            Source.model_validate({"data": {"a": "f"}, "columns": {"x": "c", "y": "c"}})


class TestPlanRuns:
    MODES = ("centralised", "serial", "client-batching", "alone:red")

    def test_goes_seed_by_seed(self, spec_path: Path) -> None:
        found = read_comparison(spec_path)
        modes = parse_modes(self.MODES, silos=found.source.silos)
        runs = plan_runs(found, modes, num_seeds=2, threads=1)
        assert [str(run) for run in runs] == [
            f"{mode}, seed {seed}" for seed in (3, 4) for mode in self.MODES
        ]
        assert {run.job.seed for run in runs[:4]} == {run.base.seed for run in runs[:4]} == {3}
        assert len({run.fingerprint for run in runs}) == len(runs)

    def test_knows_what_a_result_depends_on(self, spec_path: Path) -> None:
        def fingerprint(path: Path, *, threads: int = 1) -> str:
            found = read_comparison(path)
            modes = parse_modes(["centralised"], silos=found.source.silos)
            return plan_runs(found, modes, num_seeds=1, threads=threads)[0].fingerprint

        first = fingerprint(spec_path)
        assert fingerprint(spec_path) == first
        assert fingerprint(spec_path, threads=2) != first
        assert fingerprint(changed(spec_path, rounds="3")) != first
        (spec_path.parent / "red.txt").write_text("another\n" * 9)
        assert fingerprint(spec_path) != first

    def test_names_every_mode_that_cannot_be(self, spec_path: Path) -> None:
        found = read_comparison(changed(spec_path, batch_size="2000"))
        modes = parse_modes((*USUAL_MODES[:3], "alone"), silos=found.source.silos)
        with pytest.raises(SpecError) as caught:
            plan_runs(found, modes, num_seeds=1, threads=1)
        assert [line.split(": ")[0] for line in caught.value.message.splitlines()] == [
            "alone:red",
            "alone:green",
            "alone:blue",
            "alone:grey",
        ]
