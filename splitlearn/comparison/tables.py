"""The report's tables, as words: Markdown and the page show the same. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from splitlearn.comparison.intervals import Interval
from splitlearn.comparison.modes import CENTRALISED
from splitlearn.comparison.report import Report
from splitlearn.comparison.summary import ModeSummary

NOTHING = "–"  # noqa: RUF001 - an en dash where there is no number
_BEFORE = "before training"
_KIBI = 1024
_TEXT_SCORES = {"rouge_1": "ROUGE-1", "rouge_2": "ROUGE-2", "rouge_l": "ROUGE-L", "bleu_4": "BLEU-4"}


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        key: Stable word for it.
        title: Above it.
        heads: Of the columns; the first column names the row, the others hold numbers.
        rows: Cells.
        note: One or two sentences below it.
    """

    key: str
    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str


_BUDGETS = "What each mode learned from"


def tables_of(report: Report) -> tuple[Table, ...]:
    """Return the tables that have rows."""
    tables = (
        _results(report),
        _texts(report),
        _silos(report),
        _costs(report),
        _rows(report),
        _budgets(report),
    )
    return tuple(table for table in tables if table.rows)


def metric_word(report: Report) -> str:
    """Return what the metric is called."""
    return "accuracy" if report.has_metric else "evaluation loss"


def _results(report: Report) -> Table:
    has_metric, has_reference = report.has_metric, any(s.mode.name == CENTRALISED for s in report.summaries)
    has_alone = report.alone is not None
    columns: list[tuple[str, Callable[[ModeSummary], str]]] = [
        ("evaluation loss", lambda summary: interval(summary.eval_loss))
    ]
    if has_reference:
        columns.append(("to centralised", lambda summary: percent_interval(summary.difference)))
    if has_metric:
        columns.append(("accuracy", lambda summary: share_interval(summary.metric)))
    if has_metric and has_reference:
        columns.append(("to centralised, points", lambda summary: points_interval(summary.metric_difference)))
    if has_alone:
        columns.append(("better than the mean silo alone", _seeds_better))
    columns.append(("seeds", lambda summary: str(len(summary.seeds))))
    rows = [(s.mode.name, *(show(s) for _, show in columns)) for s in report.summaries]
    if report.before is not None:
        before = dict.fromkeys((head for head, _ in columns), NOTHING)
        before["evaluation loss"] = interval(report.before.eval_loss)
        before["seeds"] = str(len(report.before.seeds))
        if has_metric:
            before["accuracy"] = share_interval(report.before.metric)
        rows.insert(0, (_BEFORE, *before.values()))
    if report.alone is not None:
        blanks = (NOTHING,) * (len(columns) - 1)
        rows.append(("mean silo alone", interval(report.alone), *blanks))
    return Table(
        "results",
        "Results",
        ("mode", *(head for head, _ in columns)),
        tuple(rows),
        "On the held-out rows of all silos together: mean loss per label token in nats, lower is better"
        + ("; accuracy is the share of rows answered rightly. " if has_metric else ". ")
        + "In brackets 95 % bootstrap intervals of the mean over seeds. Differences to centralised are means "
        "over pairs of runs with the same seed; of the loss relative, so that +1 % is worse.",
    )


def _texts(report: Report) -> Table:
    """Show how near generated summaries are to those that were wanted."""
    names = dict.fromkeys(
        name for summary in report.summaries for name in summary.scores if name in _TEXT_SCORES
    )
    scored = [(summary.mode.name, summary.scores) for summary in report.summaries]
    if report.before is not None:
        scored.insert(0, (_BEFORE, report.before.scores))
    rows = tuple((row, *(share_interval(scores.get(name)) for name in names)) for row, scores in scored)
    return Table(
        "texts",
        "Generated summaries",
        ("mode", *(_TEXT_SCORES[name] for name in names)),
        rows if names else (),
        "Greedy, for each evaluated row; F1 of shared words, pairs of words and the longest common sequence, "
        "and BLEU-4 of each silo's texts together. Means over the silos, weighted by rows; higher is better.",
    )


def _seeds_better(summary: ModeSummary) -> str:
    if not summary.compared_with_alone:
        return NOTHING
    return f"{summary.better_than_alone} of {summary.compared_with_alone} seeds"


def _silos(report: Report) -> Table:
    """Show each silo's own rows: what it has of training with the others."""
    names = [silo.name for silo in report.base.silos]
    shared = [summary for summary in report.summaries if summary.mode.kind != "alone"]
    alone = {summary.mode.silo: summary for summary in report.summaries if summary.mode.kind == "alone"}
    show = share_interval if report.has_metric else interval

    def cell(summary: ModeSummary | None, silo: str) -> str:
        return NOTHING if summary is None else show(summary.silo_metrics[silo])

    rows = tuple(
        (silo, cell(alone.get(silo), silo), *(cell(summary, silo) for summary in shared)) for silo in names
    )
    return Table(
        "silos",
        f"Each silo's own held-out rows: {metric_word(report)}",
        ("silo", "alone", *(summary.mode.name for summary in shared)),
        rows if report.summaries else (),
        "What a silo has of training with the others. Alone: the model that it trained on its own rows.",
    )


def _costs(report: Report) -> Table:
    rows = tuple(
        (
            summary.mode.name,
            seconds(summary.seconds.mean),
            size(summary.bytes.mean) if summary.bytes.mean else NOTHING,
            size(summary.memory_bytes.mean),
        )
        for summary in report.summaries
    )
    return Table(
        "costs",
        "What it costs",
        ("mode", "training time", "sealed bytes", "largest memory"),
        rows,
        f"Means over seeds. All parties of a run are one process on this machine, {report.threads} "
        f"thread{'s' if report.threads > 1 else ''} of torch each, {report.parallel} "
        f"run{'s' if report.parallel > 1 else ''} at a time: seconds compare work, not machines side by "
        "side. Bytes are those between silos and trunk in training, both directions, sums of silo blocks "
        "too. Memory holds the program itself and, in a federation, every party.",
    )


def _rows(report: Report) -> Table:
    first = report.results[0].silos if report.results else ()
    rows = tuple(
        (
            silo.name,
            f"{silo.rows:,}",
            f"{silo.training:,}",
            f"{silo.heldout:,}",
            f"{silo.evaluated:,}",
            f"{silo.truncated:,}",
            f"{silo.dropped:,}",
        )
        for silo in first
    )
    return Table(
        "rows",
        "The silos' rows",
        ("silo", "rows", "to train on", "held out", "evaluated", "cut short", "dropped"),
        rows,
        f"Of the first seed; which rows are held out follows from the seed. Cut short: longer than "
        f"{report.base.max_tokens} tokens. Dropped: without a token to learn.",
    )


def _budgets(report: Report) -> Table:
    by_mode = {result.mode: result for result in reversed(report.results)}
    shown = [by_mode[summary.mode.name] for summary in report.summaries]
    budgets = [
        (result.mode, f"{result.optimizer_steps:,}", f"{result.rows_trained:,}", f"{result.label_tokens:,}")
        for result in shown
    ]
    columns = ("mode", "optimiser steps", "rows read", "label tokens")
    serial = "With serial the trunk steps at each silo's batch."
    if not report.base.evaluation.watches:
        return Table(
            "budgets",
            _BUDGETS,
            columns,
            tuple(budgets),
            "Of the first seed. Every mode reads as many rows, and all but the silos alone read the same "
            f"ones: a silo alone goes over its own rows more often. {serial}",
        )
    rounds = [(_rounds(result.last_round), _rounds(result.result_round)) for result in shown]
    return Table(
        "budgets",
        _BUDGETS,
        (*columns, "rounds", "result of round"),
        tuple((*budget, *numbers) for budget, numbers in zip(budgets, rounds, strict=True)),
        "Of the first seed. Evaluations decide which round a run's result is of, and may end it before the "
        f"planned {report.base.rounds} rounds: each mode by its own silos' held-out rows, a silo alone by "
        f"its own. So modes may have read more or fewer rows; seconds and bytes are of these. {serial}",
    )


def _rounds(number: int | None) -> str:
    return NOTHING if number is None else str(number)


def interval(found: Interval | None, *, digits: int = 4, sign: str = "", unit: str = "") -> str:
    """Return ``mean [low, high]``."""
    if found is None:
        return NOTHING
    text = f"{found.mean:{sign}.{digits}f}{unit}"
    if found.low is None or found.high is None:
        return text
    return f"{text} [{found.low:{sign}.{digits}f}, {found.high:{sign}.{digits}f}]"


def percent_interval(found: Interval | None) -> str:
    """Return a share as per cent with its sign."""
    return interval(_times(found, 100), digits=2, sign="+", unit=" %")


def share_interval(found: Interval | None) -> str:
    """Return a share as per cent."""
    return interval(_times(found, 100), digits=1, unit=" %")


def points_interval(found: Interval | None) -> str:
    """Return a difference of shares as percentage points."""
    return interval(_times(found, 100), digits=1, sign="+")


def seconds(value: float) -> str:
    """Return a span of time."""
    return f"{value:.1f} s"


def size(num_bytes: float) -> str:
    """Return a number of bytes in the largest unit of which it has one."""
    units: Sequence[str] = ("B", "KiB", "MiB", "GiB", "TiB")
    index = 0
    while num_bytes >= _KIBI and index < len(units) - 1:
        num_bytes, index = num_bytes / _KIBI, index + 1
    return f"{num_bytes:.0f} {units[index]}" if index == 0 else f"{num_bytes:.1f} {units[index]}"


def _times(found: Interval | None, factor: float) -> Interval | None:
    if found is None or found.low is None or found.high is None:
        return None if found is None else Interval(found.mean * factor, None, None)
    return Interval(found.mean * factor, found.low * factor, found.high * factor)
