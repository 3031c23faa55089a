"""The command as a user types it: results, bad input, signals, and going on after them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner, Result

from splitlearn.simulation.cli import app

FEW = (
    "--rounds",
    "2",
    "--steps-per-round",
    "2",
    "--batch-size",
    "2",
    "--eval-rows",
    "6",
    "--max-tokens",
    "24",
)
WHERE = (
    pytest.param(("--in-process",), id="one process"),
    pytest.param((), id="platform", marks=[pytest.mark.slow, pytest.mark.long]),
)
RESUMABLE = ("--rounds", "3", "--steps-per-round", "4", "--batch-size", "2", "--eval-rows", "6")
Demo = Callable[..., Result]


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    """Run ``trunkline demo`` in this process, with its results under the test's folder."""
    threads = torch.get_num_threads()

    def run(*arguments: str | Path, out: str = "run") -> Result:
        where = ("--out", str(tmp_path / out), "--json", str(tmp_path / f"{out}.json"))
        return CliRunner().invoke(app, ["demo", *map(str, arguments), *where])

    yield run
    torch.set_num_threads(threads)


@pytest.fixture
def result(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """The JSON that a run has written."""

    def read(out: str = "run") -> dict[str, Any]:
        content: dict[str, Any] = json.loads((tmp_path / f"{out}.json").read_text())
        return content

    return read


class TestResults:
    def test_stories_equal_the_centralised_reference(
        self, demo: Demo, result: Callable[..., dict[str, Any]], test_data: Path
    ) -> None:
        model = test_data / "models" / "stories260K"
        data = test_data / "data" / "text" / "tinystories" / "tinystories_slice.txt"
        shown = demo(*FEW, "--model", model, "--data", data, "--task", "causal-lm", "--silos", "2")
        assert shown.exit_code == 0, shown.output
        content = result()
        assert content["status"] == "completed"
        # The bound; four steps of fp32 rounding stay far below it.
        assert content["relative_difference"] < 1e-4
        assert content["eval_loss"] == pytest.approx(content["centralised_eval_loss"], rel=1e-4)
        assert [silo["name"] for silo in content["silos"]] == ["silo-1", "silo-2"]
        # Sealed bytes of three fp32 tensors of 64 numbers per token, and a little around them.
        assert 3 * 64 * 4 < content["wire_bytes_per_token"] < 1.2 * 3 * 64 * 4
        folder = Path(content["artifacts"]["silo-1"])
        assert AutoModelForCausalLM.from_pretrained(folder).config.vocab_size == 512

    def test_reviews_are_chosen_in_turns(
        self, demo: Demo, result: Callable[..., dict[str, Any]], test_data: Path
    ) -> None:
        shown = demo(
            *FEW, "--model", test_data / "models" / "stories260K", "--silos", "2", "--schedule", "serial",
            "--turn-steps", "1", "--data", test_data / "data/glue/SST-2/dev.tsv", "--task", "choice",
            "--columns", "text=sentence", "--prompt", "{text} It was", "--answers", "0=bad,1=good",
            "--adapter", "lora", "--silo-blocks", "local", "--codec", "int8", "--in-process",
        )  # fmt: skip
        assert shown.exit_code == 0, shown.output
        content = result()
        assert content["num_steps"] == 8
        assert 0 <= content["accuracy"] <= 1
        assert 0 <= content["centralised_accuracy"] <= 1
        assert "accuracy" in shown.output
        assert (Path(content["artifacts"]["silo-2"]) / "adapter_model.safetensors").is_file()

    def test_own_notes_and_tiny_model_need_nothing(
        self, demo: Demo, result: Callable[..., dict[str, Any]]
    ) -> None:
        shown = demo(*RESUMABLE, "--model", "tiny-glm", "--no-centralised", "--threads", "2", "--in-process")
        assert shown.exit_code == 0, shown.output
        content = result()
        assert content["threads"] == 2
        assert content["centralised_eval_loss"] is None
        for silo in content["silos"]:
            assert silo["loss_last"] < silo["loss_first"] - 0.5  # from near ln(768) in a dozen steps

    def test_a_schedule_that_is_left_open_is_chosen_and_told(
        self, demo: Demo, result: Callable[..., dict[str, Any]]
    ) -> None:
        shown = demo(
            *RESUMABLE, "--schedule", "auto", "--in-process", "--no-centralised", "--keep-best",
            "--precision", "bf16", "--gradient-checkpointing",
        )  # fmt: skip
        assert shown.exit_code == 0, shown.output
        said = " ".join(shown.output.split())
        assert "Schedule: client-batching was chosen (1 worker; a round takes about" in said
        content = result()
        assert content["schedule"] == "client-batching"
        assert 1 <= content["result_round"] <= 3

    @pytest.mark.slow
    @pytest.mark.long
    def test_on_the_platform_the_control_plane_chooses_it(
        self, demo: Demo, result: Callable[..., dict[str, Any]]
    ) -> None:
        shown = demo(*RESUMABLE, "--schedule", "auto", "--no-centralised")
        assert shown.exit_code == 0, shown.output
        said = " ".join(shown.output.split())
        assert "schedule: client-batching was chosen (1 worker; a round takes about" in said
        assert result()["schedule"] == "client-batching"

    @pytest.mark.parametrize("where", WHERE)
    def test_a_second_run_keeps_the_first(
        self, demo: Demo, tmp_path: Path, *, where: tuple[str, ...]
    ) -> None:
        arguments = (*FEW, "--no-centralised", "--silos", "1", *where)
        assert demo(*arguments).exit_code == 0
        shown = demo(*arguments)
        assert shown.exit_code == 0
        assert "is now in" in shown.output
        assert (tmp_path / "run" / "earlier" / "1" / "silos" / "harbour" / "result").is_dir()
        assert (tmp_path / "run" / "silos" / "harbour" / "result").is_dir()


class TestSpec:
    def test_prints_the_job_and_runs_nothing(self, demo: Demo, tmp_path: Path) -> None:
        shown = demo("--spec", "--rounds", "7")
        assert shown.exit_code == 0
        assert json.loads(shown.stdout)["rounds"] == 7
        assert list(tmp_path.iterdir()) == []


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "exit_code", "sentence"),
        [
            (
                ("--silo-blocks", "averaged", "--silos", "2"),
                2,
                "silo_blocks: 'averaged' needs at least 3 silos",
            ),
            (("--schedule", "hierarchical"), 2, "--replicas 1 is too few for schedule 'hierarchical'"),
            (("--learning-rate", "11"), 2, "--learning-rate 11.0 is above the limit"),
            (("--max-tokens", "4096"), 2, "more than the 512 positions"),
            (("--model", "no-such-model"), 3, "neither tiny-llama nor tiny-glm nor a folder"),
            (("--bottom-layers", "5", "--top-layers", "2"), 3, "keeps 5 bottom + 2 top"),
            (("--data", "no-such-file.txt"), 4, "no-such-file.txt: cannot read the data"),
            (("--columns", "text=nothing"), 4, "no column 'nothing'"),
            (("--resume",), 5, "no run to resume"),
        ],
    )
    def test_is_one_sentence_and_a_documented_code(
        self,
        demo: Demo,
        tmp_path: Path,
        *,
        arguments: tuple[str, ...],
        exit_code: int,
        sentence: str,
    ) -> None:
        shown = demo(*arguments)
        assert shown.exit_code == exit_code
        assert shown.stderr.startswith("Error: ")
        assert sentence in shown.stderr
        assert "Traceback" not in shown.output
        content = json.loads((tmp_path / "run.json").read_text())
        assert content["status"] == "failed"
        assert sentence in content["error"]["message"]
        assert not (tmp_path / "run" / "job.json").exists()

    @pytest.mark.parametrize(
        ("name", "content", "sentence"),
        [
            ("empty.txt", "", "empty.txt: the file has no rows"),
            ("torn.jsonl", '{"text": "a"}\n{"text": \n', "torn.jsonl:2: not JSON"),
            ("short.csv", "text,label\na,b\nc\n", "short.csv:3: the row has 1 fields"),
            ("few.txt", "one\ntwo\n", "2 rows are too few for 3 silos"),
        ],
    )
    def test_names_file_and_line(
        self, demo: Demo, tmp_path: Path, name: str, content: str, sentence: str
    ) -> None:
        (tmp_path / name).write_text(content)
        shown = demo("--data", tmp_path / name)
        assert (shown.exit_code, sentence in shown.stderr) == (4, True), shown.stderr

    def test_an_option_out_of_range_is_a_usage_error(self, demo: Demo) -> None:
        assert demo("--rounds", "0").exit_code == 2
        assert demo("--codec", "fp8").exit_code == 2

    def test_an_unwritable_result_is_found_before_any_work(self, demo: Demo, tmp_path: Path) -> None:
        (tmp_path / "run.json").mkdir()
        shown = demo(*FEW)
        assert (shown.exit_code, "is a folder" in shown.stderr) == (5, True)
        assert not (tmp_path / "run").exists()

    def test_counts_the_rows_that_were_cut(
        self, demo: Demo, result: Callable[..., dict[str, Any]], tmp_path: Path
    ) -> None:
        rows = ["so many words in one line of text that it cannot fit " * 9, *["short"] * 11]
        (tmp_path / "rows.txt").write_text("\n".join(rows))
        shown = demo(
            *FEW, "--data", tmp_path / "rows.txt", "--silos", "1", "--no-centralised", "--in-process"
        )
        assert shown.exit_code == 0, shown.output
        assert result()["silos"][0]["rows_truncated"] == 1
        assert "1 of 12 rows cut to 24 tokens" in shown.output


class _Process:
    """The command as a process of its own, to be sent signals."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._folder = folder
        where = ("--out", str(folder / "run"), "--json", str(folder / "run.json"))
        self._process = subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, "-m", "splitlearn.simulation", "demo", *arguments, *where],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def interrupt(self, *, after: str, signum: int) -> tuple[int, str]:
        """Send a signal once a line says ``after``; returns the exit code and standard error."""
        self._read_until(after)
        self._process.send_signal(signum)
        _, errors = self._process.communicate(timeout=120)
        return self._process.returncode, errors

    def close_output(self, *, after: str) -> tuple[int, str]:
        """Stop reading once a line says ``after``; returns the exit code and standard error."""
        self._read_until(after)
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._process.stdout.close()
        errors = self._process.stderr.read()
        self._process.stderr.close()
        return self._process.wait(timeout=120), errors

    def _read_until(self, words: str) -> None:
        assert self._process.stdout is not None
        assert any(words in line for line in self._process.stdout), f"no line says {words!r}"


def tensors(folder: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a model folder, whatever files hold them."""
    return {
        name: tensor
        for path in Path(folder).glob("*.safetensors")
        for name, tensor in load_file(path).items()
    }


class TestSignals:
    @pytest.mark.parametrize("where", WHERE)
    def test_resuming_gives_what_an_undisturbed_run_gives(
        self,
        demo: Demo,
        result: Callable[..., dict[str, Any]],
        tmp_path: Path,
        *,
        where: tuple[str, ...],
    ) -> None:
        job = ("--no-centralised", "--silo-blocks", "local", "--steps-per-round", "8")
        arguments = (*RESUMABLE, *job, *where)
        process = _Process(tmp_path, *arguments)
        exit_code, errors = process.interrupt(after="round 1/3 finished", signum=signal.SIGINT)
        assert exit_code == 130, errors
        assert "Traceback" not in errors
        assert "go on with: " in errors
        cancelled = result()
        assert cancelled["status"] == "cancelled"
        assert cancelled["error"]["code"] == "cancelled"
        assert 1 <= cancelled["last_round"] < 3

        other = demo(*arguments, "--seed", "1", "--resume")
        assert (other.exit_code, "seed was 0, is 1" in other.stderr) == (2, True), other.stderr

        assert demo(*arguments, "--resume").exit_code == 0
        assert demo(*arguments, out="undisturbed").exit_code == 0
        resumed, undisturbed = result(), result("undisturbed")
        for key in ("eval_loss", "num_steps", "wire_bytes_per_token", "eval_wire_bytes", "silos"):
            assert resumed[key] == undisturbed[key], key
        for silo, artifact in resumed["artifacts"].items():
            ours, theirs = tensors(artifact), tensors(undisturbed["artifacts"][silo])
            assert ours.keys() == theirs.keys() != set()
            assert all(torch.equal(ours[name], theirs[name]) for name in ours)

    @pytest.mark.slow
    def test_a_run_whose_output_is_closed_ends_in_order(
        self, result: Callable[..., dict[str, Any]], tmp_path: Path
    ) -> None:
        process = _Process(tmp_path, *RESUMABLE, "--no-centralised", "--silos", "1")
        exit_code, errors = process.close_output(after="round 1/3 finished")
        assert exit_code == 141, errors
        assert "Traceback" not in errors
        assert "nobody reads the output any more" in errors
        assert (result()["status"], result()["error"]["code"]) == ("cancelled", "cancelled")

    @pytest.mark.slow
    def test_no_child_outlives_a_terminated_run(
        self, result: Callable[..., dict[str, Any]], tmp_path: Path
    ) -> None:
        process = _Process(tmp_path, *FEW, "--silos", "1")
        exit_code, errors = process.interrupt(after="the centralised reference begins", signum=signal.SIGTERM)
        assert exit_code == 143, errors
        assert "Traceback" not in errors
        content = result()
        assert content["status"] == "cancelled"
        assert content["eval_loss"] is not None
        assert Path(content["artifacts"]["harbour"]).is_dir()
        assert not (tmp_path / "run" / ".reference").exists()
        assert str(tmp_path) not in _command_lines()


def _command_lines() -> str:
    """Return the command lines of all processes; those of the reference name the run's folder."""
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) != os.getpid():
            try:
                lines.append((process / "cmdline").read_bytes().decode(errors="replace"))
            except OSError:
                continue
    return "\n".join(lines)
