"""What the demo is asked for, and the job specification that follows from it. Torch-free."""

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from splitlearn.errors import SpecError
from splitlearn.presets import PRESETS, Preset
from splitlearn.simulation.flag_errors import in_flags
from splitlearn.spec import MAX_SILOS
from splitlearn.spec_defaults import Filled, fill_open_fields

Schedule = Literal["serial", "client-batching", "hierarchical", "auto"]
ReplicaSchedule = Literal["client-batching", "serial"]
SiloBlocks = Literal["frozen", "local", "averaged"]
CodecName = Literal["fp32", "bf16", "fp16", "int8"]
Precision = Literal["fp32", "bf16", "fp16"]
TaskKind = Literal["causal-lm", "sft", "summarise", "choice"]
AdapterKind = Literal["full", "lora"]

DEFAULT_SILOS = 3
LABEL_COLUMN = "label"
_WARMUP_SHARE = 20  # one twentieth of the steps
MAX_STEPS = 10_000_000 * _WARMUP_SHARE
"""Optimiser steps of the trunk in a whole run: a specification's warm-up has at most ten million."""
_DECAY_FLOOR = 0.1
_MAX_NAME = 64


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """The flags of ``trunkline demo``; None where the default depends on others.

    Attributes:
        silos: Number of silos; None for one per data file, or three.
        model: ``tiny-llama``, ``tiny-glm`` or a folder.
        data: Files, one per silo or one to deal out; none for the demo's own notes.
        task: A kind of task, or a preset's name; None for ``causal-lm`` on files and ``sft`` on the demo's
            own notes.
        columns: ``name=column`` pairs.
        prompt: Template of the text (``causal-lm``) or prompt.
        answers: Candidates (``choice``) or the answer's template (``sft``).
        learning_rate: Peak; warmed up to over a twentieth of the steps, then a cosine down to a tenth.
        evaluate_every: Rounds between two evaluations besides the last; 0 for none, or each round where
            ``keep_best`` or ``patience`` need them.
        keep_best: The result is that of the best evaluated round.
        patience: End after so many evaluations in a row that were no better; 0 for never.
        replicas: Trunks of the schedule ``hierarchical``.
        replica_schedule: How the silos of one replica take turns with it.
        in_process: All parties in one process, over links of memory.
        silo_blocks: None: averaged by 3 silos and more where the other flags allow it, else frozen.
        average_every: Steps between two averages of the silo blocks besides each round's end; 0 for none.
        freeze_a: Train the B of LoRA adapters alone.
        keep: Leave the platform running after the job.
        out: Folder of the run; None for ``runs/<name>``.
    """

    name: str = "demo"
    silos: int | None = None
    schedule: Schedule = "client-batching"
    replicas: int = 1
    replica_schedule: ReplicaSchedule = "client-batching"
    turn_steps: int | None = None
    silo_blocks: SiloBlocks | None = None
    average_every: int = 0
    freeze_a: bool = False
    codec: CodecName = "fp32"
    model: str = "tiny-llama"
    adapter: AdapterKind = "full"
    bottom_layers: int = 1
    top_layers: int = 1
    data: tuple[Path, ...] = ()
    task: str | None = None
    columns: str | None = None
    prompt: str | None = None
    answers: str | None = None
    max_tokens: int = 128
    evaluation_rows: int = 256
    rounds: int = 4
    steps_per_round: int = 40
    batch_size: int = 8
    accumulation_steps: int = 1
    learning_rate: float = 1e-3
    max_grad_norm: float | None = 1.0
    precision: Precision = "fp32"
    gradient_checkpointing: bool = False
    evaluate_every: int = 0
    keep_best: bool = False
    patience: int = 0
    seed: int = 0
    threads: int = 1
    centralised: bool = True
    resume: bool = False
    in_process: bool = False
    keep: bool = False
    out: Path | None = None
    json_path: Path | None = None

    @property
    def num_silos(self) -> int:
        """How many silos take part."""
        return self.silos or (len(self.data) if len(self.data) > 1 else DEFAULT_SILOS)

    @property
    def task_kind(self) -> TaskKind:
        """The task, its default filled in."""
        if self.preset is not None:
            return self.preset.task.kind
        return cast("TaskKind", self.task or ("causal-lm" if self.data else "sft"))

    @property
    def preset(self) -> Preset | None:
        """The preset that the task names; None where it is a kind of task."""
        return None if self.task is None else PRESETS.get(self.task)

    @property
    def out_dir(self) -> Path:
        """The run's folder, its default filled in."""
        return self.out or Path("runs") / self.name


def refuse_contradictions(options: DemoOptions) -> None:
    """Refuse flags of which each would make the other void.

    Raises:
        SpecError: Names both.
    """
    if options.keep and options.in_process:
        raise SpecError(
            "--keep leaves the platform's processes running, and with --in-process there are none; "
            "leave one of the two out"
        )
    if options.freeze_a and options.adapter != "lora":
        raise SpecError(
            f"--freeze-a has a meaning only with --adapter lora, not {options.adapter}; leave it out"
        )
    if options.average_every and options.silo_blocks not in {None, "averaged"}:
        raise SpecError(
            f"--average-every has a meaning only with --silo-blocks averaged, not {options.silo_blocks}; "
            "leave it out"
        )
    if options.task not in {None, *get_args(TaskKind), *PRESETS}:
        raise SpecError(
            f"--task {options.task!r} is neither a kind of task ({', '.join(get_args(TaskKind))}) nor a "
            f"preset ({', '.join(PRESETS)})"
        )
    if not options.data and (options.preset is not None or options.task == "summarise"):
        raise SpecError(
            f"--task {options.task} needs files, which the demo's own notes are not; give them with --data"
        )


def file_silo_names(options: DemoOptions) -> tuple[str, ...]:
    """Name the silos of data files: after their files where each has its own, else by number.

    Raises:
        SpecError: The number of files fits neither.
    """
    files = options.data
    if max(options.num_silos, len(files)) > MAX_SILOS:
        flag = f"--silos {options.num_silos}" if options.silos else f"--data given {len(files)} times"
        raise SpecError(f"{flag}: a job has at most {MAX_SILOS} silos; ask for fewer")
    if len(files) == 1:
        return tuple(f"silo-{number}" for number in range(1, options.num_silos + 1))
    if len(files) != options.num_silos:
        raise SpecError(
            f"--silos {options.num_silos} but {len(files)} data files; give --data once for each silo, "
            "or a single file to be dealt out"
        )
    names = [name_of(path) for path in files]
    doubled = {name for name, times in Counter(names).items() if times > 1}
    return tuple(
        f"{name[: _MAX_NAME - 4]}-{number}" if name in doubled else name
        for number, name in enumerate(names, 1)
    )


def name_of(path: Path) -> str:
    """Return a file's name as one that a specification allows."""
    plain = re.sub(r"[^a-z0-9._-]+", "-", path.stem.lower())[:_MAX_NAME].strip("._-")
    return plain or "data"


def build_spec(
    options: DemoOptions, *, silo_names: tuple[str, ...], own_tasks: dict[str, dict[str, Any]]
) -> Filled:
    """Return the specification of the job, and what is to be said of it.

    Args:
        options: The flags.
        silo_names: The roster, in order.
        own_tasks: By kind, the tasks on the demo's own notes; for where no file is given.

    Raises:
        SpecError: A flag's value is out of range, or flags contradict each other.
    """
    datasets = [name_of(path) for path in options.data] or list(silo_names)
    cut = {"bottom_layers": options.bottom_layers, "top_layers": options.top_layers}
    silos = [
        {"name": name, "dataset": datasets[number % len(datasets)], "cut": cut}
        for number, name in enumerate(silo_names)
    ]
    fields = {
        "name": options.name,
        "model": options.model,
        "adapter": {"kind": options.adapter, **({"freeze_a": True} if options.freeze_a else {})},
        "silos": silos,
        **({"silo_blocks": options.silo_blocks} if options.silo_blocks else {}),
        "averaging": {"every_steps": options.average_every},
        "schedule": options.schedule,
        "replicas": options.replicas,
        "replica_schedule": options.replica_schedule,
        "turn_steps": options.turn_steps,
        "learning_rate": {
            "peak": options.learning_rate,
            "warmup_steps": _warmup_steps(options, turns=_turns(options, len(silos))),
            "decay": "cosine",
            "floor": _DECAY_FLOOR,
        },
        "max_grad_norm": options.max_grad_norm,
        "batch_size": options.batch_size,
        "accumulation_steps": options.accumulation_steps,
        "max_tokens": options.max_tokens,
        "rounds": options.rounds,
        "steps_per_round": options.steps_per_round,
        "codec": options.codec,
        "seed": options.seed,
        "task": _task(options, own_tasks),
        "precision": options.precision,
        "gradient_checkpointing": options.gradient_checkpointing,
        "evaluation": {
            "max_rows": options.evaluation_rows,
            "every_rounds": options.evaluate_every or int(options.keep_best or options.patience > 0),
            "keep_best": options.keep_best,
            "patience_evaluations": options.patience,
        },
    }
    try:
        return fill_open_fields(fields, on_platform=not options.in_process)
    except SpecError as error:
        raise in_flags(error) from error.__cause__


def _turns(options: DemoOptions, num_silos: int) -> int:
    """Return how many silos at most take turns with one trunk."""
    if options.schedule == "hierarchical" and options.replica_schedule == "serial":
        return -(-num_silos // options.replicas)
    return num_silos if options.schedule == "serial" else 1


def _warmup_steps(options: DemoOptions, *, turns: int) -> int:
    num_steps = options.rounds * options.steps_per_round * turns
    if num_steps > MAX_STEPS:
        in_turns = f" of each of {turns} silos in turn" if turns > 1 else ""
        raise SpecError(
            f"--rounds {options.rounds} with --steps-per-round {options.steps_per_round}{in_turns} are "
            f"{num_steps} steps, the limit is {MAX_STEPS}; give fewer rounds or steps"
        )
    return num_steps // _WARMUP_SHARE


def _task(options: DemoOptions, own_tasks: dict[str, dict[str, Any]]) -> dict[str, Any]:
    kind = options.task_kind
    task: dict[str, Any] = {"kind": kind} if options.data else dict(own_tasks[kind])
    if options.preset is not None:
        task = options.preset.task.model_dump()
    if options.prompt is not None:
        task["text" if kind == "causal-lm" else "prompt"] = _unescaped(options.prompt)
    if options.answers is not None:
        if kind == "causal-lm":
            raise SpecError(
                "--answers has no meaning for --task causal-lm; leave it out, or choose another task"
            )
        task |= _choice(options) if kind == "choice" else {"answer": _unescaped(options.answers)}
    elif kind == "choice" and not {"answers", "candidates"} & task.keys():
        raise SpecError(
            '--task choice needs the candidate answers; give them as --answers "0=bad,1=good": '
            "each label as it stands in the data, and its text"
        )
    return task


def _choice(options: DemoOptions) -> dict[str, Any]:
    answers = parse_answers(options.answers or "")
    is_ours = options.preset is not None or not options.data
    return {"answers": answers} if is_ours else {"answers": answers, "label": LABEL_COLUMN}


def parse_answers(text: str) -> dict[str, str]:
    r"""Read ``"0=bad,1=good"``, or a JSON object where a candidate holds a comma.

    A candidate's text is taken as it stands, leading blank included; ``\n`` is a line feed.

    Raises:
        SpecError: A part is no pair, or a label occurs twice.
    """
    if text.lstrip().startswith("{"):
        return _json_answers(text)
    answers: dict[str, str] = {}
    for part in text.split(","):
        label, equals, answer = part.partition("=")
        if not (equals and label.strip() and answer):
            raise SpecError(
                f'--answers {text!r}: {part!r} is no pair; expected LABEL=TEXT pairs such as "0=bad,1=good"'
            )
        if label.strip() in answers:
            raise SpecError(f"--answers {text!r}: the label {label.strip()!r} occurs twice; keep one of them")
        answers[label.strip()] = _unescaped(answer)
    return answers


def _json_answers(text: str) -> dict[str, str]:
    try:
        answers = json.loads(text, object_pairs_hook=lambda pairs: _without_doubles(text, pairs))
    except ValueError as error:
        raise SpecError(f"--answers {text!r}: not JSON ({error}); correct it") from error
    if not all(isinstance(answer, str) for answer in answers.values()):
        raise SpecError(f"--answers {text!r}: each candidate must be a text; put it in quotes")
    return dict(answers)


def _without_doubles(text: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for label, times in Counter(label for label, _ in pairs).items():
        if times > 1:
            raise SpecError(f"--answers {text!r}: the label {label!r} occurs twice; keep one of them")
    return dict(pairs)


def _unescaped(text: str) -> str:
    """Let a shell user write a line feed or tab as two characters."""
    return text.replace("\\n", "\n").replace("\\t", "\t")
