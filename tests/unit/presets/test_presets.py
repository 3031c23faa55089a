"""Each preset on a row with its publisher's field names, and on the public files where they are present."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from splitlearn.errors import DataError, SpecError
from splitlearn.generation.summaries import metrics_of
from splitlearn.presets import PRESETS, columns_of, find_preset, overridden
from splitlearn.records import read_records
from splitlearn.spec import ChoiceTask, JobSpec, SftTask
from splitlearn.tasks import RowTexts, TextTokenizer, load_tokenizer, prepare, row_texts

ROWS: dict[str, dict[str, Any]] = {
    "boolq": {"question": "is it so", "passage": "It is so.", "idx": 0, "label": True},
    "cb": {"premise": "He said it was so.", "hypothesis": "it was so", "label": "neutral", "idx": 3},
    "copa": {
        "premise": "The man broke his toe.",
        "choice1": "He got a hole in his sock.",
        "choice2": "He dropped a hammer on his foot.",
        "question": "cause",
        "label": 1,
        "idx": 0,
    },
    "multirc": {
        "idx": 0,
        "version": 1.1,
        "passage": {
            "text": "Tom has a dog.",
            "questions": [
                {"question": "What has Tom?", "answers": [{"text": "a dog", "idx": 0, "label": 1}], "idx": 0}
            ],
        },
    },
    "record": {
        "source": "CNN",
        "passage": {"text": "Ann met Bob.", "entities": [{"start": 0, "end": 2}, {"start": 8, "end": 10}]},
        "qas": [
            {
                "query": "Later @placeholder left.",
                "answers": [{"start": 8, "end": 10, "text": "Bob"}],
                "idx": 0,
            }
        ],
        "idx": 0,
    },
    "rte": {"premise": "A sat.", "hypothesis": "A stood.", "label": "not_entailment", "idx": 1},
    "wic": {
        "word": "place",
        "sentence1": "My place.",
        "sentence2": "A place for all.",
        "idx": 0,
        "label": False,
        "start1": 3,
        "start2": 2,
        "end1": 8,
        "end2": 7,
        "version": 1.1,
    },
    "wsc": {
        "text": "Ann told Bob that he won.",
        "target": {"span2_index": 4, "span1_index": 2, "span1_text": "Bob", "span2_text": "he"},
        "idx": 0,
        "label": True,
    },
    "sst-2": {"sentence": "a charming journey . ", "label": "1"},
    "xsum": {"document": "Much happened.", "summary": "It happened.", "id": "1"},
    "cnn-dailymail": {"article": "Much happened.", "highlights": "It happened .\nAgain .", "id": "1"},
    "e2e": {"mr": "name[Alimentum], area[city centre]", "ref": "Alimentum is in the centre."},
    "gsm8k": {"question": "1 + 1?", "answer": "1 + 1 = <<1+1=2>>2\n#### 2"},
    "alpaca": {"instruction": "Add.", "input": "1 and 1", "output": "2"},
    "messages": {
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
    },
}

ASKED: dict[str, tuple[str, str]] = {
    "boolq": ("It is so.\nQuestion: is it so?\nAnswer:", " yes"),
    "cb": ("He said it was so.\nQuestion: it was so. True, false or neither?\nAnswer:", " neither"),
    "copa": (
        "The man broke his toe.\nWhat was the cause of this?\nAnswer:",
        " He dropped a hammer on his foot.",
    ),
    "multirc": ('Tom has a dog.\nQuestion: What has Tom?\nIs "a dog" a right answer?\nAnswer:', " yes"),
    "record": ("Ann met Bob.\nLater", " Bob left."),
    "rte": ("A sat.\nQuestion: A stood. True or false?\nAnswer:", " false"),
    "wic": ('My place.\nA place for all.\nDoes "place" mean the same in both?\nAnswer:', " no"),
    "wsc": ('Ann told Bob that he won.\nDoes "he" stand for "Bob" here?\nAnswer:', " yes"),
    "sst-2": ("a charming journey .\nIt was", " good"),
    "xsum": ("Much happened.\nSummary:", " It happened."),
    "cnn-dailymail": ("Much happened.\nSummary:", " It happened .\nAgain ."),
    "e2e": ("name[Alimentum], area[city centre]\nDescription:", " Alimentum is in the centre."),
    "gsm8k": ("Question: 1 + 1?\nAnswer:", " 1 + 1 = <<1+1=2>>2\n#### 2"),
    "alpaca": (
        (
            "Below is an instruction that describes a task, paired with an input that provides further "
            "context. Write a response that appropriately completes the request.\n\n"
            "### Instruction:\nAdd.\n\n### Input:\n1 and 1\n\n### Response:\n"
        ),
        "2",
    ),
    "messages": ("Hi", "Hello"),
}

SCORES_OF_CHOICES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("boolq", "copa", "rte", "wic", "wsc", "sst-2"), ("accuracy",)),
    "cb": ("accuracy", "f1_macro"),
    "multirc": ("f1", "exact_match"),
    "record": ("token_f1", "exact_match"),
}
"""Their scorer's own tests hold that these are told of such tasks."""

FILES = {
    "boolq": "superglue/BoolQ/val.jsonl",
    "cb": "superglue/CB/train.jsonl",
    "multirc": "superglue/MultiRC/val.jsonl",
    "wic": "superglue/WiC/val.jsonl",
    "wsc": "superglue/WSC/val.jsonl",
    "sst-2": "glue/SST-2/dev.tsv",
    "xsum": "summarisation/xsum/xsum_t0_200.jsonl",
    "e2e": "e2e_nlg/devset.csv",
    "gsm8k": "instruction/gsm8k/test.jsonl",
    "alpaca": "instruction/llms_from_scratch/instruction-data.json",
}


@pytest.fixture(scope="module")
def letters() -> TextTokenizer:
    """One token per byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made: TextTokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    made.chat_template = (
        "{% for message in messages %}[{{ message.role }}]{{ message.content }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    return made


def texts_of(name: str, tmp_path: Path) -> list[RowTexts]:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROWS[name]) + "\n")
    preset = PRESETS[name]
    return list(row_texts(read_records(path, layout=preset.layout), task=preset.task))


@pytest.mark.parametrize("name", PRESETS)
class TestEach:
    def test_asks_what_it_says(self, name: str, tmp_path: Path) -> None:
        [texts] = texts_of(name, tmp_path)
        assert (texts.prompt, texts.answers[texts.right]) == ASKED[name]

    def test_needs_the_columns_that_it_names(self, name: str, tmp_path: Path) -> None:
        path = tmp_path / "rows.jsonl"
        path.write_text(json.dumps(ROWS[name]) + "\n")
        [record] = read_records(path, layout=PRESETS[name].layout)
        assert set(PRESETS[name].columns) <= record.columns.keys()

    def test_fits_a_specification(self, name: str) -> None:
        fields = {
            "model": "m",
            "silos": [{"name": "a", "dataset": "d"}],
            "task": PRESETS[name].to_json()["task"],
        }
        spec = JobSpec.parse(fields)
        spec.refuse_unserved()
        assert spec.task == PRESETS[name].task
        assert JobSpec.parse(spec.canonical_bytes()) == spec

    def test_lists_the_scores_that_a_job_with_its_task_measures(self, name: str) -> None:
        preset = PRESETS[name]
        if isinstance(preset.task, ChoiceTask):
            assert preset.metrics == SCORES_OF_CHOICES[name]
        else:
            assert preset.metrics == metrics_of(preset.task)
            assert PRESETS[name].to_json()["task"].get("metrics", []) == list(preset.metrics)

    def test_can_be_learned(self, name: str, tmp_path: Path, letters: TextTokenizer) -> None:
        path = tmp_path / "rows.jsonl"
        path.write_text(json.dumps(ROWS[name]) + "\n")
        preset = PRESETS[name]
        records = read_records(path, layout=preset.layout)
        found = prepare(records, task=preset.task, tokenizer=letters, max_tokens=1000)
        assert (len(found.examples), found.truncated, found.dropped) == (1, 0, 0)


class TestPublicFiles:
    @pytest.mark.parametrize("name", FILES)
    def test_are_read_and_learned(self, name: str, test_data: Path) -> None:
        preset = PRESETS[name]
        records = list(read_records(test_data / "data" / FILES[name], layout=preset.layout))[:400]
        tokenizer = load_tokenizer(test_data / "models" / "stories260K")
        found = prepare(records, task=preset.task, tokenizer=tokenizer, max_tokens=256, vocab_size=512)
        assert (found.rows, found.dropped) == (len(records), 0)
        assert len({example.right for example in found.examples}) > 1 or not isinstance(
            preset.task, ChoiceTask
        )


def test_summaries_are_scored_and_other_written_answers_are_not() -> None:
    """So the lists agree with each other not because both are empty."""
    assert PRESETS["e2e"].metrics == ("bleu-4", "rouge-l")
    assert PRESETS["xsum"].metrics == PRESETS["cnn-dailymail"].metrics == ("rouge-1", "rouge-2", "rouge-l")
    assert PRESETS["gsm8k"].metrics == ()


class TestAlpaca:
    def test_an_instruction_without_an_input_has_no_such_part(self, tmp_path: Path) -> None:
        path = tmp_path / "rows.jsonl"
        path.write_text(json.dumps({"instruction": "Sing.", "input": "", "output": "La."}) + "\n")
        [texts] = row_texts(read_records(path), task=PRESETS["alpaca"].task)
        assert texts.prompt is not None
        assert "Input" not in texts.prompt
        assert texts.prompt.startswith("Below is an instruction that describes a task. Write")


class TestOverriding:
    def test_a_part_takes_the_place_of_the_presets(self) -> None:
        task = overridden(PRESETS["boolq"].task, prompt="{question}", answers=None)
        assert isinstance(task, ChoiceTask)
        assert (task.prompt, task.answers) == ("{question}", {"false": " no", "true": " yes"})

    def test_refuses_a_part_that_there_is_not(self) -> None:
        with pytest.raises(SpecError, match="the task sft has no answers; it has prompt, answer, chat"):
            overridden(SftTask(), answers={"0": "a", "1": "b"})

    def test_refuses_a_template_that_is_wrong(self) -> None:
        with pytest.raises(SpecError, match=r"'a\.b' is not a plain column name") as refused:
            overridden(SftTask(), prompt="{a.b}")
        assert "Input should be" not in refused.value.message, "nothing of the other tasks"


class TestFinding:
    def test_names_those_that_there_are(self) -> None:
        with pytest.raises(DataError, match=r"no preset 'squad'; there are boolq, cb, .*, messages"):
            find_preset("squad")

    def test_columns_of_a_chat_are_those_of_its_messages(self) -> None:
        assert columns_of(PRESETS["messages"].task) == ("messages", "answer")
