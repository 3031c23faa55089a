"""The demo's rows, model and job, made from its options."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from splitlearn.errors import ModelError, SpecError
from splitlearn.planning import ModelFolder
from splitlearn.simulation.dealing import deal
from splitlearn.simulation.demo_data import DEMO_TASKS, MAX_SILOS, demo_silos
from splitlearn.simulation.demo_options import DemoOptions, build_spec, file_silo_names, refuse_contradictions
from splitlearn.simulation.run_folder import Job
from splitlearn.simulation.tiny_models import TINY_MODELS, TinyModelName, build_tiny_model
from splitlearn.spec import ChoiceTask, JobSpec
from splitlearn.spec_defaults import Filled
from splitlearn.tasks import (
    ColumnMapping,
    Layout,
    Record,
    SiloData,
    load_tokenizer,
    prepare_silo_data,
    read_records,
    row_texts,
)


@dataclass(frozen=True, repr=False)
class Rows:
    """The rows of every silo, not yet tokenised, and the job that is to be run on them."""

    spec: JobSpec
    by_silo: dict[str, tuple[Record, ...]]


@dataclass(frozen=True, repr=False)
class Inputs:
    """All that a federation needs.

    Attributes:
        spec: The job.
        model_folder: The model.
        data: Every silo's data, in the roster's order.
        job: What makes two runs the same.
    """

    spec: JobSpec
    model_folder: Path
    data: tuple[SiloData, ...]
    job: Job


def plan_job(options: DemoOptions) -> JobSpec:
    """Return the job that the options ask for; see :func:`plan_with_notes`."""
    return plan_with_notes(options).spec


def plan_with_notes(options: DemoOptions) -> Filled:
    """Return the job that the options ask for, and what is to be said of it; reads no file.

    Raises:
        SpecError: A value is out of range, not served, or contradicts another.
    """
    refuse_contradictions(options)
    if options.data:
        names = file_silo_names(options)
    else:
        if options.num_silos > MAX_SILOS:
            raise SpecError(
                f"--silos {options.num_silos}: the demo's own notes are those of at most {MAX_SILOS} silos; "
                f"give --silos {MAX_SILOS} or less, or files with --data"
            )
        names = tuple(silo.name for silo in demo_silos(options.num_silos, seed=options.seed))
    own_tasks = {kind: task.model_dump() for kind, task in DEMO_TASKS.items()}
    return build_spec(options, silo_names=names, own_tasks=own_tasks)


def read_rows(options: DemoOptions, spec: JobSpec) -> Rows:
    """Read the data files and deal them out, or make the demo's own notes.

    Raises:
        DataError: A file is missing, empty or malformed; names file and line.
    """
    names = [silo.name for silo in spec.silos]
    columns = None if options.columns is None else ColumnMapping.parse(options.columns)
    if not options.data:
        own = demo_silos(len(names), seed=options.seed)
        mapping = columns or ColumnMapping()
        return Rows(spec, {silo.name: tuple(map(mapping.apply, silo.records)) for silo in own})
    layout = options.preset.layout if options.preset is not None else Layout.ROWS
    files = [read_records(path, layout=layout, columns=columns) for path in options.data]
    if len(files) == 1:
        parts: Sequence[tuple[Record, ...]] = deal(files[0], num_silos=len(names), seed=options.seed)
    else:
        parts = [tuple(records) for records in files]
    return Rows(spec, dict(zip(names, parts, strict=True)))


def open_model(spec: JobSpec) -> ModelFolder | None:
    """Look at the model's folder; None for a tiny model, which is yet to be made.

    Raises:
        ModelError: No such folder, an unknown family, or a cut larger than the model.
        SpecError: Rows may be longer than the model's positions.
    """
    if spec.model in TINY_MODELS:
        return None
    path = Path(spec.model)
    if not path.is_dir():
        raise ModelError(
            f"--model {spec.model!r} is neither {' nor '.join(TINY_MODELS)} nor a folder that is there; "
            "give one of these names, or a Hugging Face folder with safetensors"
        )
    return ModelFolder.open(path)


def prepare_inputs(options: DemoOptions, rows: Rows, *, folder: ModelFolder | None, models: Path) -> Inputs:
    """Make the tiny model where one is asked for, check the cut, and tokenise the rows.

    Args:
        options: The flags.
        rows: The rows.
        folder: The model's folder; None for a tiny model.
        models: Where tiny models are made.

    Raises:
        ModelError: The cut is larger than the model, or its tokenizer is missing.
        DataError: A column is missing, a label unknown, or a silo has too few rows.
        StorageError: The tiny model cannot be written.
    """
    spec = rows.spec
    if folder is None:
        name = cast("TinyModelName", spec.model)
        made = build_tiny_model(name, texts=_texts(rows), cache=models, seed=spec.seed)
        folder = ModelFolder.open(made)
    _refuse_unfit(spec, folder)
    tokenizer = load_tokenizer(folder.path)
    vocab_size = folder.config.get("vocab_size")
    data = tuple(
        prepare_silo_data(
            records,
            silo_name=silo,
            task=spec.task,
            tokenizer=tokenizer,
            max_tokens=spec.max_tokens,
            holdout=spec.evaluation.holdout,
            seed=spec.seed,
            vocab_size=vocab_size if isinstance(vocab_size, int) else None,
        )
        for silo, records in rows.by_silo.items()
    )
    job = Job(
        spec=spec,
        threads=options.threads,
        in_process=options.in_process,
        model=_model_fingerprint(folder),
        data={silo.name: _data_fingerprint(silo) for silo in data},
    )
    return Inputs(spec, folder.path, data, job)


def _refuse_unfit(spec: JobSpec, folder: ModelFolder) -> None:
    cut = spec.silos[0].cut
    folder.cut(bottom_layers=cut.bottom_layers, top_layers=cut.top_layers)
    positions = folder.positions
    if positions is not None and spec.max_tokens > positions:
        raise SpecError(
            f"--max-tokens {spec.max_tokens} is more than the {positions} positions of {spec.model}; "
            f"give --max-tokens {positions} or less"
        )


def _texts(rows: Rows) -> Iterator[str]:
    """Yield every row as the model will see it: what a tiny model's tokenizer is trained on."""
    for records in rows.by_silo.values():
        for texts in row_texts(records, task=rows.spec.task):
            answers = texts.answers if isinstance(rows.spec.task, ChoiceTask) else texts.answers[:1]
            yield from (f"{texts.prompt or ''}{answer}" for answer in answers)


def _data_fingerprint(silo: SiloData) -> str:
    digest = hashlib.sha256()
    for row in (*silo.training, *(row for example in silo.heldout for row in example.candidates)):
        digest.update(json.dumps([row.input_ids, row.labels]).encode())
    return digest.hexdigest()


def _model_fingerprint(folder: ModelFolder) -> str:
    """Digest the small files; of the weights, which may be many gigabytes, sizes and times of change."""
    digest = hashlib.sha256()
    for name in ("config.json", "tokenizer.json"):
        digest.update((folder.path / name).read_bytes())
    for name in sorted(set(folder.files.values())):
        found = (folder.path / name).stat()
        digest.update(f"{name}\0{found.st_size}\0{found.st_mtime_ns}\0".encode())
    return digest.hexdigest()
