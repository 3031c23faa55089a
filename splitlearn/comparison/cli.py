"""The command line: ``trunkline compare``. Only this module knows typer, the environment and the exit."""

import os
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from splitlearn.comparison.display import Display
from splitlearn.comparison.folder import MARKDOWN, PAGE, RESULT, ComparisonFolder, claim, write_text
from splitlearn.comparison.markdown import results_table, to_markdown
from splitlearn.comparison.modes import USUAL_MODES, LeftOut, Mode, parse_modes, usual_modes
from splitlearn.comparison.page import to_page
from splitlearn.comparison.plan import MAX_SEEDS, Run, plan_runs
from splitlearn.comparison.report import Report
from splitlearn.comparison.runner import Runner
from splitlearn.comparison.specification import Comparison, read_comparison
from splitlearn.errors import SpecError, TrunklineError
from splitlearn.option_errors import TellingGroup
from splitlearn.simulation import exit_codes
from splitlearn.simulation.interruption import Interruption
from splitlearn.simulation.json_files import refuse_unwritable, write_json

app = typer.Typer(
    name="trunkline",
    cls=TellingGroup,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

_EPILOG = r"""
[bold]Examples[/bold]

Everything, five seeds:  trunkline compare spec.yaml

Two modes, two seeds, elsewhere:
  trunkline compare spec.yaml --modes centralised,client-batching --seeds 2 --out runs/two

The file, and what the modes have in common: docs/compare.md. Exit codes: docs/exit-codes.md
"""


@dataclass(frozen=True)
class CompareOptions:
    """The flags of ``trunkline compare``."""

    spec: Path
    num_seeds: int
    modes: tuple[str, ...] | None
    out: Path | None
    json_path: Path | None
    root: Path | None
    parallel: int
    threads: int
    fresh: bool


@app.callback()
def _root() -> None:
    """Hold the command."""


@app.command(epilog=_EPILOG)
def compare(
    *,
    spec: Annotated[
        Path,
        typer.Argument(metavar="SPEC", help="YAML: the fields of a job, and its rows by file path."),
    ],
    seeds: Annotated[
        int, typer.Option(min=1, max=MAX_SEEDS, help="Number of seeds, from the file's seed on.")
    ] = 5,
    modes: Annotated[
        str | None,
        typer.Option(
            help="What to train, with commas between: centralised, serial, client-batching, hierarchical-R "
            "with R replicas, alone (every silo for itself) or alone:SILO. [dim]Default: "
            f"{', '.join(USUAL_MODES)}; without replicas that are more than the silos.[/dim]"
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the results. Runs that are finished in it are not repeated. "
            "[dim]Default: runs/compare/NAME.[/dim]"
        ),
    ] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Also write the numbers to this file.")
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(
            help="Relative paths in the file begin here. [dim]Default: the file's own folder.[/dim]"
        ),
    ] = None,
    parallel: Annotated[
        int | None,
        typer.Option(min=1, max=256, help="Runs at a time. [dim]Default: 2, or 1 on a single core.[/dim]"),
    ] = None,
    threads: Annotated[
        int, typer.Option(min=1, max=1024, help="Threads of torch in each run, per party.")
    ] = 1,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget the finished runs, and begin anew.")] = False,
) -> None:
    """Train one job in every way, on your own data: centrally, by each schedule, and each silo alone.

    Same rows, same seeds, same budget. Every run is a process of its own, with all its parties in it. At
    the end there are tables (report.md), a page with plots (report.html) and all numbers (comparison.json).
    """
    options = CompareOptions(
        spec=spec,
        num_seeds=seeds,
        modes=None if modes is None else tuple(modes.split(",")),
        out=out,
        json_path=json_path,
        root=root,
        parallel=parallel or min(2, os.cpu_count() or 1),
        threads=threads,
        fresh=fresh,
    )
    environment = dict(os.environ)  # noqa: TID251 - the entry point; the runs inherit it
    raise typer.Exit(_run(options, environment))


def main() -> None:
    """Run the command line and exit."""
    try:
        app(prog_name="trunkline")
    except KeyboardInterrupt:
        typer.echo("Cancelled by Ctrl-C.", err=True)
        sys.exit(exit_codes.INTERRUPTED)


def _run(options: CompareOptions, environment: Mapping[str, str]) -> int:
    with Interruption() as interruption:
        try:
            report = _compare(options, interruption, environment)
        except TrunklineError as error:
            typer.echo(f"Error: {error.message}", err=True)
            return error.exit_code
        except KeyboardInterrupt:
            typer.echo(_cancelled(sys.argv), err=True)
            return exit_codes.of_signal(interruption.signum or signal.SIGINT)
    if report.failures:
        count = len(report.failures)
        typer.echo(
            f"Error: {count} run{'s' if count > 1 else ''} failed, as named above and in the report.",
            err=True,
        )
        return report.failures[0].exit_code
    return exit_codes.OK


def _compare(options: CompareOptions, interruption: Interruption, environment: Mapping[str, str]) -> Report:
    comparison = read_comparison(options.spec, root=options.root)
    modes, left_out = _modes(options, comparison)
    runs = plan_runs(comparison, modes, num_seeds=options.num_seeds, threads=options.threads)
    if options.json_path is not None:
        _refuse_inputs(options.json_path, comparison)
        refuse_unwritable(options.json_path)
    for note in (*comparison.notes, *left_out):
        typer.echo(f"Note: {note}.", err=True)
    with claim(options.out or Path("runs") / "compare" / comparison.base.name) as folder:
        if options.fresh:
            folder.forget_runs()
        report = _train(
            comparison, runs, folder, options=options, interruption=interruption, environment=environment
        )
        report = replace(report, left_out=left_out)
        interruption.settle()
        _write(report, folder, options.json_path)
    typer.echo(results_table(report))
    typer.echo(f"\nReport: {folder.path / PAGE}, {folder.path / MARKDOWN}", err=True)
    return report


def _modes(options: CompareOptions, comparison: Comparison) -> tuple[tuple[Mode, ...], tuple[LeftOut, ...]]:
    silos = comparison.source.silos
    if options.modes is None:
        return usual_modes(silos=silos)
    return parse_modes(options.modes, silos=silos), ()


def _train(
    comparison: Comparison,
    runs: Sequence[Run],
    folder: ComparisonFolder,
    *,
    options: CompareOptions,
    interruption: Interruption,
    environment: Mapping[str, str],
) -> Report:
    with Display(Console(stderr=True), total=len(runs)) as display:
        runner = Runner(
            comparison,
            runs,
            folder=folder,
            parallel=options.parallel,
            threads=options.threads,
            environment=environment,
            watcher=display,
        )
        with interruption.calls(runner.cancel):
            interruption.check()
            outcome = runner.run()
    return Report(
        base=comparison.base,
        modes=tuple(dict.fromkeys(run.mode for run in runs)),
        num_seeds=options.num_seeds,
        threads=options.threads,
        parallel=options.parallel,
        results=outcome.results,
        failures=outcome.failures,
    )


def _write(report: Report, folder: ComparisonFolder, json_path: Path | None) -> None:
    content = report.to_json()
    write_json(folder.path / RESULT, content)
    write_text(folder.path / MARKDOWN, to_markdown(report))
    write_text(folder.path / PAGE, to_page(report))
    if json_path is not None:
        write_json(json_path, content)


def _refuse_inputs(path: Path, comparison: Comparison) -> None:
    """Refuse a path for the numbers at which one of the inputs is."""
    target = path.resolve()
    inputs = [comparison.path, *comparison.source.files]
    if any(target == file.resolve() for file in inputs) or target.is_relative_to(
        comparison.model_folder.resolve()
    ):
        raise SpecError(f"--json {path} is one of the comparison's own inputs; give it another path")


def _cancelled(arguments: Sequence[str]) -> str:
    command = shlex.join(["trunkline", *(word for word in arguments[1:] if word != "--fresh")])
    return f"Cancelled. Finished runs are kept; go on with: {command}"
