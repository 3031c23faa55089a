"""The report as Markdown. Pure."""

from collections.abc import Iterator

from splitlearn.comparison.report import Report
from splitlearn.comparison.tables import Table, tables_of


def to_markdown(report: Report) -> str:
    """Return the whole report."""
    return "\n".join(_lines(report)) + "\n"


def results_table(report: Report) -> str:
    """Return the first table alone, for a terminal."""
    return "\n".join(_table(tables_of(report)[0])) if report.summaries else "No run was finished."


def heading(report: Report) -> str:
    """Return one sentence on what was compared."""
    base = report.base
    return (
        f"Model {base.model}, task {report.task.kind}, {len(base.silos)} silos, adapter {base.adapter.kind}, "
        f"silo blocks {base.silo_blocks}, {base.rounds} rounds of {base.steps_per_round} steps, "
        f"batch {base.batch_size} per silo, {base.optimizer.kind} at {base.learning_rate.peak:g}, "
        f"{report.num_seeds} seed{'s' if report.num_seeds > 1 else ''} from {base.seed} on."
    )


def failure_sentences(report: Report) -> tuple[str, ...]:
    """Return a sentence for each run that failed."""
    return tuple(f"{failure.run}: {failure.message}" for failure in report.failures)


def _lines(report: Report) -> Iterator[str]:
    yield f"# {report.base.name}: training together, centrally, alone"
    yield ""
    yield heading(report)
    for left_out in report.left_out:
        yield ""
        yield f"Note: {left_out}."
    if report.failures:
        yield ""
        yield f"**{len(report.failures)} of the runs failed, and their numbers are missing below:**"
        yield ""
        yield from (f"- {sentence}" for sentence in failure_sentences(report))
    for table in tables_of(report):
        yield ""
        yield f"## {table.title}"
        yield ""
        yield from _table(table)
        yield ""
        yield table.note


def _table(table: Table) -> Iterator[str]:
    yield _row(table.heads)
    yield _row(("---", *("---:" for _ in table.heads[1:])))
    yield from map(_row, table.rows)


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
