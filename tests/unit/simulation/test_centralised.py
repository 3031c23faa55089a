import json
import math
import random
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from splitlearn.errors import ModelError, StorageError, UnservedError
from splitlearn.simulation.centralised import CentralisedResult, StepReport, main, train_centralised
from splitlearn.simulation.centralised_files import (
    CentralisedAnswer,
    CentralisedRequest,
    RequestedSilo,
    read_document,
    write_document,
)
from splitlearn.spec import JobSpec
from splitlearn.tasks import IGNORED, BatchPlan, Example, TokenRow, concatenate_batches


@pytest.fixture(scope="module", autouse=True)
def _one_quiet_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        LlamaForCausalLM(
            LlamaConfig(
                vocab_size=31,
                hidden_size=16,
                intermediate_size=24,
                num_hidden_layers=3,
                num_attention_heads=2,
                num_key_value_heads=2,
            )
        ).save_pretrained(path)
    return path


def silo(name: str, *, labelled: bool = True, choices: int = 1) -> RequestedSilo:
    chance = random.Random(name)

    def row() -> TokenRow:
        tokens = tuple(chance.randrange(1, 31) for _ in range(chance.randint(2, 9)))
        return TokenRow(tokens, tokens if labelled else (IGNORED,) * len(tokens))

    heldout = [
        Example(tuple(row() for _ in range(choices)), number % choices, bytes([number]))
        for number in range(5)
    ]
    return RequestedSilo(name=name, training=tuple(row() for _ in range(9)), heldout=tuple(heldout))


def job(*silos: str, **fields: Any) -> JobSpec:
    roster = [{"name": name, "dataset": name} for name in silos]
    base = {"model": "m", "adapter": {"kind": "full"}, "batch_size": 2, "rounds": 2, "steps_per_round": 2}
    return JobSpec.parse({**base, "silos": roster, **fields})


class TestTrainCentralised:
    def test_first_loss_is_that_of_the_pooled_batches(self, folder: Path) -> None:
        data = [silo("b"), silo("a")]
        spec = job("b", "a", accumulation_steps=2)
        first = train_centralised(spec, folder, data).losses[0]

        plans = [
            BatchPlan(one.training, batch_size=2, seed=0, silo_name=one.name, pad_token_id=0) for one in data
        ]
        union = concatenate_batches([plan.batch(index) for plan in plans for index in (0, 1)], pad_token_id=0)
        whole = AutoModelForCausalLM.from_pretrained(folder)
        output = whole(
            input_ids=union.input_ids_BT, attention_mask=union.layout.attention_mask(), labels=union.labels_BT
        )
        assert first == pytest.approx(output.loss.item(), rel=1e-6)  # mean instead of sum over count, in fp32

    def test_learns(self, folder: Path) -> None:
        spec = job("a", rounds=20, learning_rate={"peak": 0.01}, silo_blocks="local")
        losses = train_centralised(spec, folder, [silo("a")]).losses
        assert len(losses) == 40
        assert sum(losses[-5:]) < 0.7 * sum(losses[:5])

    @pytest.mark.parametrize(
        ("blocks", "adapter"), [("frozen", "full"), ("local", "full"), ("frozen", "lora"), ("local", "lora")]
    )
    def test_trains_what_the_split_job_trains(self, folder: Path, blocks: str, adapter: str) -> None:
        spec = job("a", silo_blocks=blocks, adapter={"kind": adapter})
        names = train_centralised(spec, folder, [silo("a")]).state.keys()
        layers = {name.split("layers.")[1][0] for name in names if "layers." in name}
        assert layers == ({"1"} if blocks == "frozen" else {"0", "1", "2"})
        assert any("embed_tokens" in name for name in names) == ((blocks, adapter) == ("local", "full"))
        assert all("lora_" in name for name in names) == (adapter == "lora")

    @pytest.mark.parametrize("schedule", ["serial", "client-batching"])
    def test_takes_each_silos_steps_once(self, folder: Path, schedule: str) -> None:
        spec = job("a", "b", schedule=schedule)
        assert len(train_centralised(spec, folder, [silo("a"), silo("b")]).losses) == 4

    def test_a_step_without_label_tokens_moves_nothing(self, folder: Path) -> None:
        result = train_centralised(job("a"), folder, [silo("a", labelled=False)])
        whole = dict(AutoModelForCausalLM.from_pretrained(folder).named_parameters())
        assert all(math.isnan(loss) for loss in result.losses)
        assert all(torch.equal(value, whole[name]) for name, value in result.state.items())

    def test_evaluates_each_silo_and_weighs_them_by_tokens(self, folder: Path) -> None:
        result = train_centralised(job("a", "b"), folder, [silo("a"), silo("b", choices=3)])
        losses = {name: evaluation.loss for name, evaluation in result.evaluations}
        tokens = sum(loss.num_tokens for loss in losses.values())
        assert losses["a"].num_tokens == sum(example.target.num_label_tokens for example in silo("a").heldout)
        mean = sum(loss.mean * loss.num_tokens for loss in losses.values()) / tokens
        assert result.eval_loss == pytest.approx(mean, rel=1e-12)
        accuracies = [evaluation.accuracy for _, evaluation in result.evaluations]
        assert accuracies[0] is None
        assert accuracies[1] is not None

    def test_evaluates_as_many_rows_as_asked(self, folder: Path) -> None:
        spec = job("a", evaluation={"max_rows": 2})
        ((_, evaluation),) = train_centralised(spec, folder, [silo("a")]).evaluations
        assert evaluation.num_examples == 2

    def test_reports_every_step_and_leaves_random_numbers_alone(self, folder: Path) -> None:
        seen: list[StepReport] = []
        state = torch.get_rng_state()
        result = train_centralised(job("a"), folder, [silo("a")], on_step=seen.append)
        assert tuple(seen) == result.steps
        assert [report.step for report in seen] == [0, 1, 2, 3]
        assert min(report.seconds for report in seen) > 0
        assert torch.equal(torch.get_rng_state(), state)

    def test_refuses_silos_with_different_cuts(self, folder: Path) -> None:
        roster = [
            {"name": name, "dataset": name, "cut": {"bottom_layers": layers, "top_layers": 1}}
            for name, layers in (("a", 0), ("b", 1))
        ]
        with pytest.raises(UnservedError, match=r"silos\.b\.cut"):
            train_centralised(job(silos=roster), folder, [silo("a"), silo("b")])


class TestProgram:
    @pytest.fixture
    def request_file(self, folder: Path, tmp_path: Path) -> Path:
        silos = (silo("a"), silo("b", choices=2))
        path = tmp_path / "request.json"
        write_document(path, CentralisedRequest(spec=job("a", "b"), model_folder=folder, silos=silos))
        return path

    def test_answers_as_the_function_does(self, request_file: Path, folder: Path) -> None:
        answer_file = request_file.with_name("answer.json")
        command = [sys.executable, "-W", "error::RuntimeWarning", "-m", "splitlearn.simulation.centralised"]
        done = subprocess.run(  # noqa: S603 - our own module
            [*command, str(request_file), str(answer_file)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        answer = read_document(answer_file, CentralisedAnswer)
        expected: CentralisedResult = train_centralised(
            job("a", "b"), folder, [silo("a"), silo("b", choices=2)]
        )
        assert answer.losses == expected.losses
        assert answer.eval_loss == expected.eval_loss
        assert [one.accuracy for one in answer.silos] == [one.accuracy for _, one in expected.evaluations]
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert [(line["step"], line["loss"]) for line in lines] == list(enumerate(expected.losses))

    def test_ends_with_a_sentence_and_the_errors_code(
        self, request_file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        request = read_document(request_file, CentralisedRequest)
        lost = request.model_copy(update={"model_folder": request_file.with_name("nowhere")})
        write_document(request_file, lost)
        assert main([str(request_file), str(request_file.with_name("answer.json"))]) == ModelError.exit_code
        assert "nowhere" in capsys.readouterr().err
        assert not request_file.with_name("answer.json").exists()


class TestFiles:
    def test_keep_every_row_and_number(self, folder: Path, tmp_path: Path) -> None:
        request = CentralisedRequest(spec=job("a"), model_folder=folder, threads=2, silos=(silo("a"),))
        write_document(tmp_path / "r.json", request)
        assert read_document(tmp_path / "r.json", CentralisedRequest) == request
        answer = CentralisedAnswer(
            losses=(math.nan, 0.1), eval_loss=math.inf, seconds_per_step=1e-9, silos=()
        )
        write_document(tmp_path / "a.json", answer)
        read = read_document(tmp_path / "a.json", CentralisedAnswer)
        assert math.isnan(read.losses[0])
        assert (read.losses[1], read.eval_loss, read.seconds_per_step) == (0.1, math.inf, 1e-9)

    def test_are_readable_by_their_owner_only(self, tmp_path: Path) -> None:
        answer = CentralisedAnswer(losses=(), eval_loss=0, seconds_per_step=0, silos=())
        write_document(tmp_path / "a.json", answer)
        assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o600

    @pytest.mark.parametrize("text", ["", "{}", '{"losses": "secret"}'])
    def test_that_are_no_answer_are_refused_without_a_quotation(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(StorageError) as refused:
            read_document(tmp_path / "a.json", CentralisedAnswer)
        assert "secret" not in refused.value.message
        assert "a.json" in refused.value.message

    def test_that_are_missing_or_too_large_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="cannot be read"):
            read_document(tmp_path / "none.json", CentralisedAnswer)
        (tmp_path / "a.json").write_text("12345")
        with pytest.raises(StorageError, match="5 bytes, the limit is 4"):
            read_document(tmp_path / "a.json", CentralisedAnswer, max_bytes=4)

    def test_that_cannot_be_written_are_named(self, tmp_path: Path) -> None:
        answer = CentralisedAnswer(losses=(), eval_loss=0, seconds_per_step=0, silos=())
        with pytest.raises(StorageError, match=r"nowhere/a\.json"):
            write_document(tmp_path / "nowhere" / "a.json", answer)
