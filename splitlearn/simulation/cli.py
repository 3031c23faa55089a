"""The command line: ``trunkline demo``.

Only this module knows typer and the exit; torch is loaded once the flags are understood.
"""

import os
import shlex
import shutil
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from splitlearn.errors import TrunklineError
from splitlearn.option_errors import TellingGroup
from splitlearn.simulation import exit_codes
from splitlearn.simulation.demo_options import (
    AdapterKind,
    CodecName,
    DemoOptions,
    Precision,
    ReplicaSchedule,
    Schedule,
    SiloBlocks,
)
from splitlearn.simulation.interruption import Interruption
from splitlearn.simulation.terminal import Terminal
from splitlearn.spec import MAX_SILOS

if TYPE_CHECKING:
    from splitlearn.simulation.outcome import DemoOutcome

app = typer.Typer(
    name="trunkline",
    cls=TellingGroup,
    help="Organisations that may not share their data fine-tune one large language model together.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

_WHO, _MODEL, _DATA = "Federation", "Model and cut", "Data and task"
_TRAINING, _OUTPUT = "Training", "Run and results"

_EPILOG = r"""
[bold]Examples[/bold]

The project's own task, three silos:  trunkline demo

Your model, one text file dealt out to four silos:
  trunkline demo --model path/to/model --data stories.txt --silos 4

One file per silo, the loss on the answer only:
  trunkline demo --data north.jsonl --data south.csv --task sft
  --prompt 'Question: {question} Answer:' --answers ' {answer}'

Classification, every candidate scored:
  trunkline demo --model path/to/model --data reviews.tsv --task choice
  --columns text=sentence --prompt '{text} It was' --answers '0= bad,1= good'

Exit codes: docs/exit-codes.md
"""


def _print_version(is_asked: bool) -> None:  # noqa: FBT001 - typer's signature of a callback
    if is_asked:
        typer.echo(f"trunkline {version('trunkline')}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    _: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Hold the commands."""


@app.command(epilog=_EPILOG)
def demo(
    *,
    silos: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_SILOS,
            help="Number of silos. [dim]Default: one per --data file, else 3.[/dim]",
            rich_help_panel=_WHO,
        ),
    ] = None,
    schedule: Annotated[
        Schedule,
        typer.Option(
            help="client-batching: one trunk step on all silos' activations. serial: silos take turns. "
            "hierarchical: --replicas trunks side by side, averaged after each round. "
            "auto: whichever of these is the quickest here.",
            rich_help_panel=_WHO,
        ),
    ] = "client-batching",
    replicas: Annotated[
        int,
        typer.Option(
            min=1, help="hierarchical: trunks, each with its share of the silos.", rich_help_panel=_WHO
        ),
    ] = 1,
    replica_schedule: Annotated[
        ReplicaSchedule,
        typer.Option(help="hierarchical: how the silos of one replica take turns.", rich_help_panel=_WHO),
    ] = "client-batching",
    turn_steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="serial: steps of one silo's turn. [dim]Default: its whole round.[/dim]",
            rich_help_panel=_WHO,
        ),
    ] = None,
    silo_blocks: Annotated[
        SiloBlocks | None,
        typer.Option(
            help="frozen: bottom and top stay as they are. local: each silo trains its own. averaged: they "
            "are averaged by a secure sum after each round, over 3 silos or more. "
            "[dim]Default: averaged, with 3 silos or more; else frozen.[/dim]",
            rich_help_panel=_WHO,
        ),
    ] = None,
    average_every: Annotated[
        int,
        typer.Option(
            min=0,
            help="averaged: average after each n-th step too. [dim]Default: at each round's end only.[/dim]",
            rich_help_panel=_WHO,
        ),
    ] = 0,
    codec: Annotated[
        CodecName, typer.Option(help="How tensors are encoded on the wire.", rich_help_panel=_WHO)
    ] = "fp32",
    model: Annotated[
        str,
        typer.Option(
            help="tiny-llama or tiny-glm (made on the spot), or a Hugging Face folder with safetensors.",
            rich_help_panel=_MODEL,
        ),
    ] = "tiny-llama",
    adapter: Annotated[
        AdapterKind,
        typer.Option(help="Train every weight, or LoRA adapters (r 8).", rich_help_panel=_MODEL),
    ] = "full",
    freeze_a: Annotated[
        bool,
        typer.Option(
            "--freeze-a",
            help="lora: train B alone, so that averaging the adapters averages what they do.",
            rich_help_panel=_MODEL,
        ),
    ] = False,
    bottom_layers: Annotated[
        int, typer.Option(min=0, help="First layers that each silo keeps.", rich_help_panel=_MODEL)
    ] = 1,
    top_layers: Annotated[
        int, typer.Option(min=0, help="Last layers that each silo keeps.", rich_help_panel=_MODEL)
    ] = 1,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="Text (a row per line), JSONL, CSV or TSV. Repeat it once per silo, or give one file to be "
            "dealt out unevenly. [dim]Default: triage notes made by the project.[/dim]",
            rich_help_panel=_DATA,
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="causal-lm: every token is learned. sft, summarise: the answer only. choice: each candidate "
            "answer is scored. Or a preset: boolq, sst-2, xsum, alpaca ... (trunkline-agent data presets). "
            "[dim]Default: causal-lm on --data, sft on the project's notes.[/dim]",
            rich_help_panel=_DATA,
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="Names for the file's columns, NAME=COLUMN,...: 'text=sentence,label=gold'. choice reads "
            "the right answer from the column [bold]label[/bold].",
            rich_help_panel=_DATA,
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            help="Template over the columns: the text (causal-lm, '{text}') or what the model reads before "
            "its answer (sft '{prompt}', choice '{text}'). \\\\n is a line feed.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    answers: Annotated[
        str | None,
        typer.Option(
            help="choice: LABEL=TEXT,... or a JSON object: '0= bad,1= good'. sft: the answer's template, "
            "'{answer}'. Both follow the prompt as they stand: begin with a blank if the tokenizer needs it.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    max_tokens: Annotated[
        int,
        typer.Option(min=2, help="Longest row; longer ones are cut, and counted.", rich_help_panel=_DATA),
    ] = 128,
    evaluation_rows: Annotated[
        int,
        typer.Option(
            "--eval-rows", min=1, help="At most so many held-out rows per silo.", rich_help_panel=_DATA
        ),
    ] = 256,
    rounds: Annotated[
        int, typer.Option(min=1, help="Rounds; each ends with checkpoints.", rich_help_panel=_TRAINING)
    ] = 4,
    steps_per_round: Annotated[
        int, typer.Option(min=1, help="Steps of each silo in a round.", rich_help_panel=_TRAINING)
    ] = 40,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Rows per silo and micro-batch.", rich_help_panel=_TRAINING)
    ] = 8,
    accumulation_steps: Annotated[
        int, typer.Option(min=1, help="Micro-batches per step.", rich_help_panel=_TRAINING)
    ] = 1,
    learning_rate: Annotated[
        float,
        typer.Option(
            help="Peak: warm-up over a twentieth of the steps, then a cosine down to a tenth of it.",
            rich_help_panel=_TRAINING,
        ),
    ] = 1e-3,
    precision: Annotated[
        Precision,
        typer.Option(
            help="Of the matrix products; weights, gradients and optimiser stay fp32.",
            rich_help_panel=_TRAINING,
        ),
    ] = "fp32",
    gradient_checkpointing: Annotated[
        bool,
        typer.Option(
            "--gradient-checkpointing",
            help="Compute layers again in the backward: less memory, the same bits.",
            rich_help_panel=_TRAINING,
        ),
    ] = False,
    evaluate_every: Annotated[
        int,
        typer.Option(
            "--eval-every", min=0, help="Evaluate after each n-th round too.", rich_help_panel=_TRAINING
        ),
    ] = 0,
    keep_best: Annotated[
        bool,
        typer.Option(
            "--keep-best", help="The result is the best evaluated round's.", rich_help_panel=_TRAINING
        ),
    ] = False,
    patience: Annotated[
        int,
        typer.Option(
            "--patience",
            min=0,
            help="End after so many evaluations in a row that were no better; 0: never.",
            rich_help_panel=_TRAINING,
        ),
    ] = 0,
    max_grad_norm: Annotated[
        float,
        typer.Option(min=0, help="Gradients are clipped to this norm; 0: not.", rich_help_panel=_TRAINING),
    ] = 1.0,
    seed: Annotated[
        int, typer.Option(min=0, help="Of data, model and training.", rich_help_panel=_TRAINING)
    ] = 0,
    threads: Annotated[
        int, typer.Option(min=1, max=1024, help="Threads of torch, per party.", rich_help_panel=_TRAINING)
    ] = 1,
    name: Annotated[str, typer.Option(help="Name of the job.", rich_help_panel=_OUTPUT)] = "demo",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the run. What an earlier run left in it is moved to its folder 'earlier'. "
            "[dim]Default: runs/NAME.[/dim]",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    json_path: Annotated[
        Path | None,
        typer.Option("--json", help="Also write the result to this file.", rich_help_panel=_OUTPUT),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with the interrupted run in the folder.", rich_help_panel=_OUTPUT
        ),
    ] = False,
    centralised: Annotated[
        bool,
        typer.Option(
            "--centralised/--no-centralised",
            help="Train the centralised reference afterwards.",
            rich_help_panel=_OUTPUT,
        ),
    ] = True,
    in_process: Annotated[
        bool,
        typer.Option(
            "--in-process",
            help="Run all parties in one process, over links of memory, instead of as the platform's "
            "processes; the numbers are the same.",
            rich_help_panel=_OUTPUT,
        ),
    ] = False,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep",
            help="Leave the platform running after the job, and show its address and log-in; Ctrl-C ends it.",
            rich_help_panel=_OUTPUT,
        ),
    ] = False,
    spec: Annotated[
        bool,
        typer.Option("--spec", help="Print the job specification, and run nothing.", rich_help_panel=_OUTPUT),
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", help="Show warnings of libraries, and bugs in full.", rich_help_panel=_OUTPUT
        ),
    ] = False,
) -> None:
    """Let silos fine-tune one language model together, cut, sealed and scheduled for real.

    Control plane, gateway, worker and every silo's agent run as processes of their own on this machine, and
    the job goes over the REST API. Then a centralised reference is trained on the pooled data, and both are
    shown side by side.
    """
    options = DemoOptions(
        name=name,
        silos=silos,
        schedule=schedule,
        replicas=replicas,
        replica_schedule=replica_schedule,
        turn_steps=turn_steps,
        silo_blocks=silo_blocks,
        average_every=average_every,
        freeze_a=freeze_a,
        codec=codec,
        model=model,
        adapter=adapter,
        bottom_layers=bottom_layers,
        top_layers=top_layers,
        data=tuple(data or ()),
        task=task,
        columns=columns,
        prompt=prompt,
        answers=answers,
        max_tokens=max_tokens,
        evaluation_rows=evaluation_rows,
        rounds=rounds,
        steps_per_round=steps_per_round,
        batch_size=batch_size,
        accumulation_steps=accumulation_steps,
        learning_rate=learning_rate,
        max_grad_norm=max_grad_norm or None,
        precision=precision,
        gradient_checkpointing=gradient_checkpointing,
        evaluate_every=evaluate_every,
        keep_best=keep_best,
        patience=patience,
        seed=seed,
        threads=threads,
        centralised=centralised,
        resume=resume,
        in_process=in_process,
        keep=keep,
        out=out,
        json_path=json_path,
    )
    raise typer.Exit(_print_spec(options) if spec else _run(options, verbose=verbose))


def main() -> None:
    """Run the command line and exit; an interruption before the command began is one sentence too."""
    try:
        app(prog_name="trunkline")
    except KeyboardInterrupt:
        typer.echo("Cancelled by Ctrl-C.", err=True)
        sys.exit(exit_codes.INTERRUPTED)
    except SystemExit as ended:
        sys.exit(exit_codes.UNREAD if _is_unread(ended) else ended.code)


def _is_unread(ended: BaseException) -> bool:
    """Whether a library exits, with code 1, because nobody reads what it prints: ``--help | head``."""
    cause = ended.__context__
    while cause is not None and not isinstance(cause, BrokenPipeError):
        cause = cause.__context__
    return cause is not None


def _print_spec(options: DemoOptions) -> int:
    from splitlearn.simulation.choosing import refuse_unserved_but_open  # noqa: PLC0415
    from splitlearn.simulation.demo_inputs import plan_job  # noqa: PLC0415 - torch takes seconds to load

    try:
        spec = plan_job(options)
        refuse_unserved_but_open(spec, on_platform=not options.in_process)
    except TrunklineError as error:
        _complain(error.message)
        return error.exit_code
    typer.echo(spec.model_dump_json(indent=2))
    return exit_codes.OK


def _run(options: DemoOptions, *, verbose: bool) -> int:
    with Interruption() as interruption:
        try:
            return _run_and_report(options, interruption, verbose=verbose)
        except KeyboardInterrupt:
            typer.echo("Cancelled.", err=True)
            return exit_codes.of_signal(interruption.signum or signal.SIGINT)


def _run_and_report(options: DemoOptions, interruption: Interruption, *, verbose: bool) -> int:
    with interruption.waits():  # torch takes seconds to load
        from splitlearn.simulation.demo import quiet_libraries, run_demo  # noqa: PLC0415
        from splitlearn.simulation.display import choose_display  # noqa: PLC0415
        from splitlearn.simulation.report import print_report  # noqa: PLC0415

    console = Terminal(interruption)
    with nullcontext() if verbose else quiet_libraries():
        outcome = run_demo(
            options,
            display=choose_display(console),
            interruption=interruption,
            environment=dict(os.environ),  # noqa: TID251 - the entry point; the processes inherit it
        )
    interruption.settle()
    if outcome.federation is not None and outcome.federation.status == "completed":
        print_report(console, outcome)
    if outcome.fault is not None:
        _complain_of(outcome, verbose=verbose)
    if outcome.kept is not None:
        console.print(f"Still running: {outcome.kept.address}. Ctrl-C ends it.", soft_wrap=True)
        interruption.wait()
        outcome.kept.close()
    return outcome.exit_code


def _complain_of(outcome: "DemoOutcome", *, verbose: bool) -> None:
    fault = outcome.fault
    assert fault is not None
    if outcome.status == "cancelled":
        typer.echo(f"{fault.message}.", err=True)
    else:
        _complain(fault.message)
    if fault.cause is not None:
        if verbose:
            typer.echo("".join(traceback.format_exception(fault.cause)), err=True)
        else:
            typer.echo("This is a bug: run it again with --verbose and report what it prints.", err=True)
    if outcome.is_resumable:
        typer.echo(_how_to_resume(outcome, sys.argv), err=True)


def _how_to_resume(outcome: "DemoOutcome", arguments: Sequence[str]) -> str:
    command = shlex.join([*_program(arguments[0]), *(word for word in arguments[1:] if word != "--resume")])
    if outcome.last_round == 0:
        return f"No round was finished yet; begin anew with: {command}"
    return f"Rounds 1 to {outcome.last_round} are kept in {outcome.out_dir}; go on with: {command} --resume"


def _program(path: str, *, scripts: Path | None = None) -> list[str]:
    """Return the words by which the user calls us; ``scripts`` is where our interpreter has its programs."""
    called = Path(path)
    if called.name == "__main__.py":  # also as what ``trunkline demo`` has become
        called = (scripts or Path(sys.executable).parent) / "trunkline"
        if not called.exists():
            return [sys.executable, "-m", "splitlearn.simulation"]
        if shutil.which(called.name) == str(called):
            return [called.name]
    try:
        return [str(called.absolute().relative_to(Path.cwd()))]
    except ValueError:
        return [str(called)]


def _complain(sentence: str) -> None:
    typer.echo(f"Error: {sentence}", err=True)
