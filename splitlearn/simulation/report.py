"""What the demo prints at its end."""

import math
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from splitlearn.simulation.display import decimal
from splitlearn.simulation.outcome import DemoOutcome
from splitlearn.simulation.results import SiloResult, SimulationResult, scores_json

_STAYED = (
    "Stayed at each silo: its text, tokens, labels and block weights. Crossed, sealed: activations, hidden "
    "states and their gradients, row lengths, label counts, losses and gradient norms (docs/what-leaves.md)."
)
_AVERAGED = (
    "Stayed at each silo: its text, tokens and labels. Crossed, sealed: activations, hidden states and their "
    "gradients, row lengths, label counts, losses and gradient norms; and what its blocks learned, under "
    "masks that only the sum over all silos takes off (docs/what-leaves.md)."
)
_MEBIBYTE = 1 << 20
_MAX_SILOS_NAMED = 8
_MAX_ANSWERS_SHOWN = 8
_SCORE_NAMES = {
    "f1": "F1",
    "f1_macro": "macro F1",
    "exact_match": "exact match",
    "token_f1": "F1 of words",
    "rouge_1": "ROUGE-1",
    "rouge_2": "ROUGE-2",
    "rouge_l": "ROUGE-L",
    "bleu_4": "BLEU-4",
}


def print_report(console: Console, outcome: DemoOutcome) -> None:
    """Print the table of silos, the numbers of the whole, and where the results lie."""
    if outcome.federation is not None:
        console.print(report(outcome, outcome.federation))


def report(outcome: DemoOutcome, result: SimulationResult) -> RenderableType:
    """Return the report; fits 80 columns."""
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, text in _facts(outcome, result):
        facts.add_row(name, Text(text))
    stayed = _AVERAGED if result.spec.silo_blocks == "averaged" else _STAYED
    return Group(_silo_table(outcome, result), facts, Padding(Text(stayed, style="dim"), (1, 0, 0, 0)))


def _silo_table(outcome: DemoOutcome, result: SimulationResult) -> Table:
    is_choice = result.accuracy is not None
    beside = "centra-\nlised" if is_choice else "centralised"
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0), show_footer=True)
    # The only column that may wrap, so that a narrow terminal never cuts a number.
    table.add_column("silo", "all", overflow="fold", vertical="bottom")
    columns = [
        ("rows", str(sum(silo.report.rows for silo in result.silos))),
        ("loss\nfirst", ""),
        ("loss\nlast", ""),
        ("eval\nloss", decimal(result.eval_loss, 4)),
        (beside, decimal(outcome.reference.eval_loss if outcome.reference else None, 4)),
    ]
    if is_choice:
        columns += [
            ("accuracy", percent(result.accuracy)),
            (beside, percent(outcome.reference_accuracy)),
        ]
    for title, footer in columns:
        table.add_column(title, footer, justify="right", no_wrap=True, vertical="bottom")
    for silo in result.silos:
        table.add_row(*_silo_cells(outcome, silo, is_choice=is_choice))
    return table


def _silo_cells(outcome: DemoOutcome, silo: SiloResult, *, is_choice: bool) -> list[str]:
    answer = outcome.reference_of(silo.name)
    cells = [
        silo.name,
        str(silo.report.rows),
        decimal(silo.loss_first, 3),
        decimal(silo.loss_last, 3),
        decimal(silo.eval_loss, 4),
        decimal(answer.eval_loss if answer else None, 4),
    ]
    if is_choice:
        cells += [percent(silo.accuracy), percent(answer.accuracy if answer else None)]
    return cells


def _facts(outcome: DemoOutcome, result: SimulationResult) -> list[tuple[str, str]]:
    wire = (
        f"{decimal(result.wire_bytes_per_token, 1)} bytes per training token, both directions; "
        f"{mebibytes(result.eval_wire_bytes)} for evaluation"
    )
    threads = f"{result.threads} thread{'' if result.threads == 1 else 's'} per party"
    return [
        *_before(result),
        ("difference", _difference(outcome)),
        ("seconds per step", _seconds(outcome, result)),
        ("wire", wire),
        ("memory", f"{_memory(result)}; {threads}"),
        ("truncated", _truncated(result)),
        *_scores(outcome, result),
        *_withheld(result),
        *_rounds(result),
        ("results", _places(outcome, result)),
    ]


def _before(result: SimulationResult) -> list[tuple[str, str]]:
    loss, accuracy = result.eval_loss_before, result.accuracy_before
    if loss is None:
        return []
    told = "" if accuracy is None else f", accuracy {percent(accuracy)}"
    if result.eval_loss > loss:
        told += ": better than the result; --keep-best would have kept it"
    return [("before training", f"eval loss {decimal(loss, 4)}{told}")]


def _truncated(result: SimulationResult) -> str:
    rows = sum(silo.report.rows for silo in result.silos)
    cut = [silo for silo in result.silos if silo.report.truncated]
    total = sum(silo.report.truncated for silo in cut)
    sentence = f"{total} of {rows} rows cut to {result.spec.max_tokens} tokens"
    if cut:
        sentence += ": " + "; ".join(_cut_of(silo) for silo in cut[:_MAX_SILOS_NAMED])
        sentence += f"; and {len(cut) - _MAX_SILOS_NAMED} silos more" if len(cut) > _MAX_SILOS_NAMED else ""
    return sentence


def _cut_of(silo: SiloResult) -> str:
    report = silo.report
    sides = [
        (report.prompts_cut, "prompts", report.tokens_cut_left, "left"),
        (report.answers_cut, "answers or texts", report.tokens_cut_right, "right"),
    ]
    told = (
        f"{count} {what} by {tokens} tokens on the {side}" for count, what, tokens, side in sides if count
    )
    return f"{silo.name} {', '.join(told)}"


def _scores(outcome: DemoOutcome, result: SimulationResult) -> list[tuple[str, str]]:
    """Return what a choice says beside its accuracy: of the whole, of each silo, of each answer."""
    overall = scores_json(result.scores, result.spec.task)
    lines = [
        (_SCORE_NAMES[name], _beside(outcome, result, name, value))
        for name, value in overall.items()
        if name in _SCORE_NAMES
    ]
    answers = list(overall.get("answers", {}).items())
    for key, scores in answers[:_MAX_ANSWERS_SHOWN]:
        told = ", ".join(f"{name} {percent(value)}" for name, value in scores.items())
        lines.append((f"answer {key}", told))
    if len(answers) > _MAX_ANSWERS_SHOWN:
        lines.append(("answers", f"{len(answers) - _MAX_ANSWERS_SHOWN} more are in the JSON (--json)"))
    return lines


def _beside(outcome: DemoOutcome, result: SimulationResult, name: str, value: float) -> str:
    told = []
    for silo in result.silos:
        own = {score.name: score.value for score in silo.scores}
        answer = outcome.reference_of(silo.name)
        other = {score.name: score.value for score in answer.scores} if answer else {}
        beside = f" (centralised {percent(other[name])})" if name in other else ""
        told.append(f"{silo.name} {percent(own.get(name))}{beside}")
    rest = f"; and {len(told) - _MAX_SILOS_NAMED} silos more" if len(told) > _MAX_SILOS_NAMED else ""
    return f"{percent(value)}: {', '.join(told[:_MAX_SILOS_NAMED])}{rest}"


def _withheld(result: SimulationResult) -> list[tuple[str, str]]:
    told = [
        f"{silo.name}: fewer than {silo.withheld_below} rows" for silo in result.silos if silo.withheld_below
    ]
    return [("withheld", "; ".join(told))] if told else []


def _rounds(result: SimulationResult) -> list[tuple[str, str]]:
    """Return which rounds were trained, and which the result is of, where that is not all and the last."""
    told, planned = [], result.spec.rounds
    decided = result.result_round
    if decided is not None and result.last_round < planned:
        told.append(f"{result.last_round} of {planned}: no evaluation improved the loss any more")
    if decided == 0:
        told.append("none was better than what the job began with: that is the result")
    elif decided is not None and decided < result.last_round:
        told.append(f"the results are those of round {decided}, the best")
    return [("rounds", "; ".join(told))] if told else []


def _memory(result: SimulationResult) -> str:
    peaks = result.peak_memory_bytes
    if "all" in peaks:
        return f"{mebibytes(peaks['all'])} at the most, all parties in one process"
    return "at the most " + ", ".join(f"{role} {mebibytes(peak)}" for role, peak in peaks.items())


def _difference(outcome: DemoOutcome) -> str:
    if outcome.reference is None:
        return "not known: the centralised reference was not run to its end"
    difference = outcome.relative_difference
    if difference is None:
        return "not known: an evaluation loss is not a number"
    return f"{difference:.1e} of the centralised evaluation loss"


def _seconds(outcome: DemoOutcome, result: SimulationResult) -> str:
    text = decimal(result.seconds_per_step, 3)
    if outcome.reference is not None:
        text += f", centralised {decimal(outcome.reference.seconds_per_step, 3)}"
    return text


def _places(outcome: DemoOutcome, result: SimulationResult) -> str:
    whole = [silo for silo in result.silos if silo.artifact is not None]
    if not whole:
        return "none yet"
    if len(whole) == 1 and whole[0].artifact is not None:
        return str(whole[0].artifact)
    names = ",".join(silo.name for silo in whole)
    return f"{Path(outcome.out_dir) / 'silos'}/{{{names}}}/result"


def percent(share: float | None) -> str:
    """Return a share in percent; a dash for none."""
    return "-" if share is None or math.isnan(share) else f"{share:.1%}"


def mebibytes(count: int) -> str:
    """Return bytes as MiB."""
    return f"{count / _MEBIBYTE:,.1f} MiB"
