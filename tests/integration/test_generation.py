"""Generation with what a job trained: the result's own answers, and nothing but the closed list is said."""

from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, GenerationConfig

from splitlearn.errors import StorageError
from splitlearn.generation import GenerationOptions
from splitlearn.partition import BatchLayout
from splitlearn.simulation.generating import generate
from splitlearn.wire import (
    CachedHidden,
    CacheEnd,
    Decode,
    Direction,
    Goodbye,
    Prefill,
    Ready,
    TurnEnd,
    TurnRequest,
    TurnResult,
    TurnStart,
)
from tests.integration.conftest import LORA, VOCAB, Job, NewJob, silo_rows
from tests.integration.recording import Recorder, leaves, recording
from tests.integration.test_closed_list import control_part, ngrams

SHAPE: dict[str, Any] = {"rounds": 2, "steps_per_round": 3}
PROMPTS = ((5, 9, 31, 40, 12), (50, 51, 3, 4, 20, 61, 7, 8), (33, 20, 61))
OPTIONS = GenerationOptions(max_new_tokens=6)


def result_answers(job: Job, silo: str) -> list[tuple[int, ...]]:
    """What the silo's result, loaded by plain libraries, answers."""
    folder = job.work_dir / "silos" / silo / "result"
    if (folder / "adapter_config.json").is_file():
        base = AutoModelForCausalLM.from_pretrained(job.folder)
        model = PeftModel.from_pretrained(base, folder)
    else:
        model = AutoModelForCausalLM.from_pretrained(folder)
    model.generation_config = GenerationConfig(max_new_tokens=6, do_sample=False, pad_token_id=0)
    layout = BatchLayout(tuple(map(len, PROMPTS)), "left")
    ids = torch.tensor([[0] * (layout.width - len(prompt)) + list(prompt) for prompt in PROMPTS])
    found = model.generate(input_ids=ids, attention_mask=layout.attention_mask())
    return [tuple(row) for row in found[:, layout.width :].tolist()]


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("llama", {}),
        ("gpt2-tied", {}),
        ("llama", {"adapter": LORA}),
        ("llama", {"silo_blocks": "frozen"}),
        ("llama", {"schedule": "hierarchical", "replicas": 2}),
    ],
)
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_answers_are_those_of_the_silos_result(name: str, fields: dict[str, Any], new_job: NewJob) -> None:
    job = new_job(name, silo_rows("a"), silo_rows("b"), **{**SHAPE, **fields})
    job.run()
    for silo in ("a", "b"):
        found = generate(
            job.spec, PROMPTS, OPTIONS, model_folder=job.folder, silo=silo, work_dir=job.work_dir
        )
        assert list(found.tokens) == result_answers(job, silo)
    untrained = generate(job.spec, PROMPTS, OPTIONS, model_folder=job.folder, silo="a")
    assert untrained.tokens != found.tokens


def test_a_folder_without_a_round_is_refused(new_job: NewJob) -> None:
    job = new_job("llama", silo_rows("a"), **SHAPE)
    with pytest.raises(StorageError, match="no finished round"):
        generate(job.spec, PROMPTS, OPTIONS, model_folder=job.folder, silo="a", work_dir=job.work_dir)


class TestWhatIsSaid:
    @pytest.fixture
    def said(
        self, new_job: NewJob, monkeypatch: pytest.MonkeyPatch
    ) -> tuple[Recorder, list[tuple[int, ...]]]:
        """All that one generation said, and its answers."""
        recorder = recording(monkeypatch, made_in=("splitlearn.simulation.generating",) * 2)
        job = new_job("llama", silo_rows("a"), **SHAPE)
        found = generate(job.spec, PROMPTS, OPTIONS, model_folder=job.folder, silo="a")
        return recorder, list(found.tokens)

    def test_is_the_generating_part_of_the_list(self, said: Any) -> None:
        recorder, _ = said
        ours = recorder.messages("a", Direction.SILO_TO_TRUNK)
        theirs = recorder.messages("a", Direction.TRUNK_TO_SILO)
        assert [type(each) for each in ours] == [
            *(Ready, TurnRequest, Prefill),
            *[Decode] * 5,
            *(CacheEnd, TurnEnd, Goodbye),
        ]
        assert [type(each) for each in theirs] == [TurnStart, *[CachedHidden] * 6, TurnResult]

    def test_holds_hidden_states_and_no_logits(self, said: Any) -> None:
        recorder, _ = said
        messages = [message for direction in Direction for message in recorder.messages("a", direction)]
        widths = {
            value.shape[1]
            for message in messages
            for _, value in leaves(message)
            if isinstance(value, np.ndarray)
        }
        assert widths == {32}
        assert VOCAB not in widths

    def test_holds_no_run_of_tokens_in_its_control_fields(self, said: Any) -> None:
        recorder, answers = said
        texts = [*PROMPTS, *answers]
        patterns = {pattern for text in texts for pattern in ngrams(text, size=3)}
        assert len(patterns) > 100
        for direction in Direction:
            encoded = recorder.said["a", direction]
            for raw, message in zip(encoded, recorder.messages("a", direction), strict=True):
                control = control_part(raw, message)
                assert not [pattern for pattern in patterns if pattern in control]

    def test_depends_on_the_drawn_tokens_only_by_hidden_states(self, said: Any) -> None:
        recorder, answers = said
        steps = [m for m in recorder.messages("a", Direction.SILO_TO_TRUNK) if isinstance(m, Decode)]
        assert [step.rows for step in steps] == [(0, 1, 2)] * 5
        assert [step.positions for step in steps] == [
            tuple(len(prompt) + number for prompt in PROMPTS) for number in range(5)
        ]
        assert all(len(answer) == 6 for answer in answers)
