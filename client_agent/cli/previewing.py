"""``trunkline-agent data preview``: rows as they are, or as a task sees them; on this terminal only."""

from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from client_agent.cli.options import DEFAULT_STATE_DIR, AsJson, StateDir, resolved
from client_agent.cli.output import show_json, show_rows
from client_agent.data import Dataset, DatasetRegistry
from splitlearn.errors import DataError, SpecError
from splitlearn.presets import find_preset, overridden
from splitlearn.simulation.demo_options import parse_answers
from splitlearn.spec import CausalLmTask, ChoiceTask, JobSpec, SftTask, SummariseTask, TaskSpec

if TYPE_CHECKING:
    from client_agent.data.preview import Preview, PreviewedRow

EPILOG = "Example: trunkline-agent data preview reviews -n 3 --tokenizer models/tiny --max-tokens 128"
DEFAULT_MAX_TOKENS = 128
_MAX_CELL_CHARACTERS = 200
_MAX_TEXT_CHARACTERS = 2000
_OF_A_KIND: dict[str, TaskSpec] = {
    "causal-lm": CausalLmTask(),
    "sft": SftTask(),
    "summarise": SummariseTask(),
}


def preview(
    name: Annotated[str, typer.Argument(help="What jobs call the data set.")],
    *,
    num_rows: Annotated[int, typer.Option("--rows", "-n", min=1, max=1000, help="How many rows.")] = 5,
    preset: Annotated[
        str | None, typer.Option(help="As this preset asks. Default: the one that it was added by.")
    ] = None,
    job: Annotated[
        Path | None, typer.Option(help="As the job of this specification asks (JSON).", dir_okay=False)
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="Another prompt, or text for causal-lm.")] = None,
    answers: Annotated[
        str | None, typer.Option(help="Other answers: LABEL=TEXT,... or JSON; the answer's template for sft.")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Model folder: also say what truncation does to the whole file.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=2, help="Longest row. Default: the job's, or 128.")
    ] = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    as_json: AsJson = False,
) -> None:
    """Show the first rows, on this terminal only: as they are, or what a task reads and learns of them."""
    dataset = DatasetRegistry(resolved(state_dir)).get(name)
    spec = _spec(job)
    task = _task(dataset, spec, preset=preset, prompt=prompt, answers=answers)
    if task is None:
        _show_as_they_are(dataset, num_rows, as_json=as_json)
        return
    from client_agent.data.preview import preview as render  # noqa: PLC0415 - torch takes seconds to load

    limit = max_tokens or (spec.max_tokens if spec else DEFAULT_MAX_TOKENS)
    found = render(dataset, task=task, num_rows=num_rows, model_folder=tokenizer, max_tokens=limit)
    if as_json:
        show_json(
            {
                "task": task.model_dump(mode="json"),
                "rows": [asdict(row) for row in found.rows],
                "truncation": found.counts(),
            }
        )
        return
    typer.echo("\n\n".join(_described(row) for row in found.rows))
    typer.echo("\n" + _truncation(found))


def _spec(job: Path | None) -> JobSpec | None:
    if job is None:
        return None
    try:
        return JobSpec.parse(job.read_bytes())
    except OSError as error:
        raise SpecError(f"{job}: cannot read the specification ({error.strerror}); give its path") from error


def _task(
    dataset: Dataset, spec: JobSpec | None, *, preset: str | None, prompt: str | None, answers: str | None
) -> TaskSpec | None:
    """Return the task to show the rows by; None to show them as they are."""
    named = preset or dataset.preset
    if spec is not None:
        base: TaskSpec | None = spec.task
    elif named is not None:
        base = find_preset(named).task
    else:
        base = _OF_A_KIND.get(dataset.task)
    if prompt is None and answers is None:
        return base if spec is not None or named is not None else None
    if base is None:
        raise DataError(
            f"data set {dataset.name!r} is for tasks of any kind, so --prompt and --answers could be of any; "
            "say which by --preset or --job, or add it again for one kind (--task)"
        )
    return overridden(base, **_parts(base, prompt, answers))


def _parts(base: TaskSpec, prompt: str | None, answers: str | None) -> dict[str, Any]:
    asked = "text" if isinstance(base, CausalLmTask) else "prompt"
    if isinstance(base, ChoiceTask):
        return {asked: prompt, "answers": None if answers is None else parse_answers(answers)}
    return {asked: prompt, "answer": answers}


def _show_as_they_are(dataset: Dataset, num_rows: int, *, as_json: bool) -> None:
    rows = [dict(record.columns) for record in islice(dataset.records(), num_rows)]
    if as_json:
        show_json(rows)
        return
    columns = list(dict.fromkeys(column for row in rows for column in row))
    show_rows([{c: _cell(row.get(c)) for c in columns} for row in rows], columns, as_json=False)


def _described(row: "PreviewedRow") -> str:
    parts = [f"line {row.line}"]
    if row.reads:
        parts.append(_labelled("reads", row.reads))
    parts.append(_labelled("learns", row.learns))
    parts += [_labelled("other", other) for other in row.others]
    cut = [(row.cut_left, "left"), (row.cut_right, "right")]
    parts += [f"  cut    {count} tokens on the {side}" for count, side in cut if count]
    return "\n".join(parts)


def _labelled(word: str, text: str) -> str:
    if len(text) > _MAX_TEXT_CHARACTERS:
        half = _MAX_TEXT_CHARACTERS // 2
        text = f"{text[:half]} [... {len(text) - 2 * half} characters ...] {text[-half:]}"
    return f"  {word:<6} |" + text.replace("\n", "\n         |") + "|"


def _truncation(found: "Preview") -> str:
    counts = found.counts()
    if counts is None:
        return "What is cut depends on the model: --tokenizer MODEL_FOLDER counts it."
    return (
        f"{counts['rows_truncated']} of {counts['rows']} rows cut to {counts['max_tokens']} tokens: "
        f"{counts['prompts_cut']} prompts on the left by {counts['tokens_cut_left']} tokens, "
        f"{counts['answers_cut']} answers or texts on the right by {counts['tokens_cut_right']}; "
        f"{counts['rows_dropped']} without a token to learn dropped."
    )


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= _MAX_CELL_CHARACTERS else text[: _MAX_CELL_CHARACTERS - 3] + "..."
