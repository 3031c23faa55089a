"""The presets that there are. Field names are those of the publishers' own files."""

from collections.abc import Mapping
from types import MappingProxyType

from splitlearn.errors import DataError
from splitlearn.presets.preset import Preset
from splitlearn.records import Layout
from splitlearn.spec import ChatSpec, ChoiceTask, SftTask, SummariseTask
from splitlearn.task_spec import SummaryMetric

_NO_YES = {"false": " no", "true": " yes"}
_ROUGE: tuple[SummaryMetric, ...] = ("rouge-1", "rouge-2", "rouge-l")
_BLEU: tuple[SummaryMetric, ...] = ("bleu-4", "rouge-l")

_SUPERGLUE = (
    Preset(
        name="boolq",
        summary="SuperGLUE BoolQ: a yes/no question on a passage",
        task=ChoiceTask(prompt="{passage}\nQuestion: {question|trim}?\nAnswer:", answers=_NO_YES),
        metrics=("accuracy",),
    ),
    Preset(
        name="cb",
        summary="SuperGLUE CommitmentBank: does the speaker hold the hypothesis to be true?",
        task=ChoiceTask(
            prompt="{premise}\nQuestion: {hypothesis|trim}. True, false or neither?\nAnswer:",
            answers={"entailment": " true", "contradiction": " false", "neutral": " neither"},
        ),
        metrics=("accuracy", "f1_macro"),
    ),
    Preset(
        name="copa",
        summary="SuperGLUE COPA: the more plausible cause or effect",
        task=ChoiceTask(
            prompt='{premise}\nWhat {if question == "cause"}was the cause of this{else}happened then{end}?\n'
            "Answer:",
            answers={"0": " {choice1}", "1": " {choice2}"},
        ),
        metrics=("accuracy",),
    ),
    Preset(
        name="multirc",
        summary="SuperGLUE MultiRC: which answers to a question on a passage are right; a row per answer",
        task=ChoiceTask(
            prompt='{passage}\nQuestion: {question}\nIs "{answer}" a right answer?\nAnswer:',
            answers={"0": " no", "1": " yes"},
            positive="1",
            group="group",
        ),
        metrics=("f1", "exact_match"),
        layout=Layout.MULTIRC,
    ),
    Preset(
        name="record",
        summary="SuperGLUE ReCoRD: which of a passage's entities is missing in a sentence; a row per query",
        task=ChoiceTask(
            prompt="{passage}\n{before}",
            label="answers",
            candidates="entities",
            candidate="{space}{candidate}{after}",
        ),
        metrics=("token_f1", "exact_match"),
        layout=Layout.RECORD,
    ),
    Preset(
        name="rte",
        summary="SuperGLUE RTE: does the hypothesis follow?",
        task=ChoiceTask(
            prompt="{premise}\nQuestion: {hypothesis} True or false?\nAnswer:",
            answers={"entailment": " true", "not_entailment": " false"},
        ),
        metrics=("accuracy",),
    ),
    Preset(
        name="wic",
        summary="SuperGLUE WiC: does a word mean the same in two sentences?",
        task=ChoiceTask(
            prompt='{sentence1}\n{sentence2}\nDoes "{word}" mean the same in both?\nAnswer:',
            answers=_NO_YES,
        ),
        metrics=("accuracy",),
    ),
    Preset(
        name="wsc",
        summary="SuperGLUE WSC: whom does a pronoun stand for?",
        task=ChoiceTask(
            prompt='{text}\nDoes "{span2_text}" stand for "{span1_text}" here?\nAnswer:', answers=_NO_YES
        ),
        metrics=("accuracy",),
        layout=Layout.WSC,
    ),
)

_OTHERS = (
    Preset(
        name="sst-2",
        summary="GLUE SST-2: sentiment of a sentence of a review",
        task=ChoiceTask(prompt="{sentence|trim}\nIt was", answers={"0": " bad", "1": " good"}),
        metrics=("accuracy",),
        files="tsv",
    ),
    Preset(
        name="xsum",
        summary="XSum: news, summarised in a sentence",
        task=SummariseTask(prompt="{document}\nSummary:", answer=" {summary}", metrics=_ROUGE),
        metrics=_ROUGE,
    ),
    Preset(
        name="cnn-dailymail",
        summary="CNN/DailyMail: news, summarised in a few sentences",
        task=SummariseTask(prompt="{article}\nSummary:", answer=" {highlights}", metrics=_ROUGE),
        metrics=_ROUGE,
        files="csv, jsonl",
    ),
    Preset(
        name="e2e",
        summary="E2E: facts on a restaurant, put into a sentence",
        task=SummariseTask(prompt="{mr}\nDescription:", answer=" {ref}", metrics=_BLEU),
        metrics=_BLEU,
        files="csv",
    ),
    Preset(
        name="gsm8k",
        summary="GSM8K: grade-school mathematics, with the way to the answer",
        task=SftTask(prompt="Question: {question}\nAnswer:", answer=" {answer}"),
        metrics=(),
    ),
    Preset(
        name="alpaca",
        summary="Instructions: instruction, perhaps an input, output",
        task=SftTask(
            prompt="Below is an instruction that describes a task"
            "{if input}, paired with an input that provides further context{end}. "
            "Write a response that appropriately completes the request.\n\n"
            "### Instruction:\n{instruction}\n\n{if input}### Input:\n{input}\n\n{end}### Response:\n",
            answer="{output}",
        ),
        metrics=(),
        files="json, jsonl",
    ),
    Preset(
        name="messages",
        summary="Conversations: lists of messages with role and content; a row per turn of the assistant",
        task=SftTask(answer="{answer}", chat=ChatSpec(messages="messages")),
        metrics=(),
        layout=Layout.MESSAGES,
        files="jsonl, json",
    ),
)

PRESETS: Mapping[str, Preset] = MappingProxyType({preset.name: preset for preset in (*_SUPERGLUE, *_OTHERS)})
"""Every preset, by name."""


def find_preset(name: str) -> Preset:
    """Return a preset.

    Raises:
        DataError: None of that name; says which there are.
    """
    if name not in PRESETS:
        raise DataError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]
