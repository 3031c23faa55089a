"""The page ``docs/what-the-control-plane-learns.md``, written from the schema itself.

``python -m splitlearn.control_plane.catalogue > docs/what-the-control-plane-learns.md`` writes it; a test
compares, and another sees that the agent sends no number that is not listed.
"""

import sys
from collections.abc import Mapping

from pydantic import BaseModel

from splitlearn.control_plane.admission import EnrolBody, LoginBody
from splitlearn.control_plane.generation_schemas import OpenGenerationBody
from splitlearn.control_plane.schemas import (
    ApprovalBody,
    AttachBody,
    DatasetAnnouncement,
    DatasetsBody,
    FinishBody,
    LogLine,
    LogsBody,
    MetricPoint,
    MetricsBody,
    TicketBody,
)

_INTRODUCTION = """\
# What the control plane learns of a silo

Written by `python -m splitlearn.control_plane.catalogue > docs/what-the-control-plane-learns.md`; do not
edit. Tests compare this page with the schema, and with the numbers that the agent sends.

This is the closed list of what a silo's agent says to the control plane. No row, text, token, label or tensor
is among it, and a body with any other field is refused. What the silo says to the trunk is another list
([what-leaves.md](what-leaves.md)), sealed from end to end: the control plane cannot read it.

Whoever runs the control plane reads all of this; so do the people of the silo's organisation, within their
roles. Besides it the former sees addresses and times of connections, and which files are downloaded.
"""

SAID: Mapping[type[BaseModel], Mapping[str, tuple[str, str]]] = {
    EnrolBody: {
        "secret": ("out of the invitation", "nothing more"),
        "fingerprint": ("of the federation root, out of the invitation", "nothing more"),
        "public_key": ("the silo's own, made at the silo", "nothing more"),
        "signature": ("over all of this, by that key", "nothing more"),
    },
    LoginBody: {
        "kind": ("silo", "nothing more"),
        "name": ("the silo's", "nothing more"),
        "nonce": ("out of the control plane's question", "nothing more"),
        "boot_id": ("random, of this process", "when the agent was started"),
        "previous_boot_id": ("of the process before", "nothing more"),
        "signature": ("over all of this and the control plane's address", "nothing more"),
    },
    DatasetsBody: {"datasets": ("all of the silo's data sets, each as below", "how many there are")},
    DatasetAnnouncement: {
        "name": ("as the owner called it", "what the owner wrote into it"),
        "task": ("kind of task that it may be used for", "nothing more"),
        "num_rows": ("rows in the file", "the data set's size"),
        "schema_digest": ("SHA-256 over column names and kinds", "whether two silos' columns are the same"),
    },
    ApprovalBody: {
        "decision": ("whether the silo takes part", "nothing more"),
        "code": ("one word of why not", "nothing more"),
        "reason": (
            "a sentence with counts and column names",
            "how many rows lack a column or have a label outside the job's; never which",
        ),
    },
    AttachBody: {"attempt": ("random, of this process", "how often the silo began again")},
    TicketBody: {
        "job": ("the job", "nothing more"),
        "replica": ("which trunk", "nothing more"),
        "epoch": ("of the lease", "nothing more"),
        "silo": ("the silo's name", "when it connects"),
    },
    OpenGenerationBody: {
        "attempt": (
            "random; opens a session to generate with a job's result, which is then asked after every second",
            "when the silo generates, and for how long",
        ),
    },
    MetricsBody: {
        "job": ("the job", "nothing more"),
        "replica": ("a worker's word; a silo tells none", "nothing more"),
        "metrics": ("numbers, each as below", "progress"),
    },
    MetricPoint: {
        "name": ("one of the list below", "nothing more"),
        "round": ("the round", "progress"),
        "step": ("the global step; -1 for a number of the round", "progress; how long a step takes"),
        "value": ("a number, see below", "see below"),
    },
    LogsBody: {"job": ("the job", "nothing more"), "lines": ("events, each as below", "progress")},
    LogLine: {
        "at": ("the silo's clock", "when something happened there"),
        "level": ("info, warning or error", "nothing more"),
        "event": ("one word of the list below", "progress"),
        "code": ("one word: the kind of an error", "what failed; no sentence, no path, no row"),
        "round": ("the round", "progress"),
        "step": ("the global step", "progress"),
        "epoch": ("of the lease", "nothing more"),
        "seconds": ("how long it took", "the machine's speed"),
    },
    FinishBody: {
        "attempt": ("random bytes that name the attempt", "nothing more"),
        "outcome": ("how the silo's part came out", "nothing more"),
        "code": ("one word", "nothing more"),
        "message": ("a sentence; of the silo's own files only their kind", "what failed; no path, no row"),
    },
}
"""Each body that an agent sends, and of each field what it is and what it may reveal."""

_PER_CLASS = "how well the model answers; with the others, how many rows have which label, roughly"

SILO_METRICS: Mapping[str, tuple[str, str]] = {
    "rows": ("rows of the data set", "size"),
    "rows_training": ("of them, for training", "size"),
    "rows_heldout": ("of them, held out", "size"),
    "rows_truncated": ("rows longer than `max_tokens`", "how long rows are"),
    "prompts_cut": ("prompts that were shortened", "how long prompts are"),
    "answers_cut": ("answers that were shortened", "how long answers are"),
    "rows_dropped": ("rows without a label token", "how many rows are of no use"),
    "training_tokens": ("tokens in the training rows", "size"),
    "label_tokens_total": ("of them, tokens that the loss is taken on", "how long answers are"),
    "tokens_cut_left": ("tokens that prompts lost on their left", "how long prompts are"),
    "tokens_cut_right": ("tokens that answers or texts lost on their right", "how long answers are"),
    "min_metric_rows": (
        "the silo's policy: a loss or score over fewer rows is withheld, here and from the trunk",
        "the policy",
    ),
    "loss": ("mean loss of a step, in nats per label token", "how well the model knows this silo's rows"),
    "label_tokens": ("tokens of a step that the loss is taken on", "how long a batch's answers are"),
    "valid_tokens": ("tokens of a step", "how long a batch's rows are"),
    "seconds": ("of a step", "the machine's speed"),
    "compute_seconds": ("of these, spent computing at the silo", "the machine's speed"),
    "applied": ("whether the step was applied", "whether a gradient was finite"),
    "eval_rows": ("held-out rows that were scored", "size"),
    "eval_withheld_below": (
        "instead of the numbers below, where they would stand on fewer rows than the policy asks for",
        "that there are fewer",
    ),
    "eval_loss": ("mean loss on the held-out rows", "how well the model knows them"),
    "eval_tokens": ("tokens of the held-out rows that count", "size"),
    "accuracy": ("share of held-out rows answered rightly", "how well the model answers"),
    "f1": ("F1 of the answer that counts as positive", _PER_CLASS),
    "f1_macro": ("mean F1 over the answers", _PER_CLASS),
    "precision_N": ("of the N-th answer, where a job has at most 32", _PER_CLASS),
    "recall_N": ("of the N-th answer", _PER_CLASS),
    "f1_N": ("of the N-th answer", _PER_CLASS),
    "exact_match": (
        "share of held-out groups of rows of which every row is answered rightly",
        "how well the model answers",
    ),
    "token_f1": ("F1 of the words shared with the right answer", "how well the model answers"),
    **{
        name: (f"{what} of summaries that the model wrote for held-out rows", "how well the model writes")
        for name, what in (
            ("rouge_1", "ROUGE-1"),
            ("rouge_2", "ROUGE-2"),
            ("rouge_l", "ROUGE-L"),
            ("bleu_4", "BLEU-4"),
        )
    },
    "wire_bytes": ("sealed bytes of training so far", "size"),
    "eval_wire_bytes": ("sealed bytes of evaluation so far", "size"),
    "resent_messages": ("messages sent again after lost connections", "how good the network is"),
    "peak_memory_bytes": ("largest resident memory of the job's process", "the machine"),
    "round_trip_seconds": (
        "to the gateway and back, by the shortest ping",
        "how far away the silo is",
    ),
}
"""Every number that an agent sends, by its name."""

SILO_EVENTS: Mapping[str, str] = {
    "job_began": "the job's process began",
    "prepared": "model and rows are ready",
    "refused": "the silo refuses the job",
    "attached": "the silo joins the trunk under an epoch",
    "attempt_failed": "the conversation with the trunk ended early",
    "stuck": "a computation did not come back within patience; another process goes on",
    "step": "a training step, at most one line every 10 seconds",
    "round_saved": "the silo's checkpoint of a round is on disk",
    "finished": "the silo has its result",
    "failed": "the silo cannot go on",
}
"""Every event that an agent tells of, by its word."""

_HEAD = "|---|---|---|"


def catalogue() -> str:
    """Return the whole page as Markdown."""
    parts = [_INTRODUCTION]
    for body, meanings in SAID.items():
        summary = (body.__doc__ or "").splitlines()[0].replace("``", "`")
        parts.append(
            f"## {body.__name__}\n\n{summary}\n\n| field | what it is | what it may reveal |\n{_HEAD}"
        )
        parts += [_row(name, meanings[name]) for name in body.model_fields]
        parts.append("")
    parts.append(f"## Numbers\n\n| name | what it is | what it may reveal |\n{_HEAD}")
    parts += [_row(name, meaning) for name, meaning in SILO_METRICS.items()]
    parts.append("\n## Events\n\n| word | what it says |\n|---|---|")
    parts += [f"| `{word}` | {meaning} |" for word, meaning in SILO_EVENTS.items()]
    return "\n".join(parts) + "\n"


def _row(name: str, meaning: tuple[str, str]) -> str:
    what, reveals = meaning
    return f"| `{name}` | {what} | {reveals} |"


if __name__ == "__main__":
    sys.stdout.write(catalogue())
