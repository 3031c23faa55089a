"""One run of a comparison, in a process of its own.

Prints a line of JSON now and then: how far it is, or, at the end, what went wrong.
"""

import json
import math
import sys
import time
from pathlib import Path

import torch

from splitlearn.comparison.dealing import dealt
from splitlearn.comparison.run_files import RunRequest, RunResult, read_document, write_document
from splitlearn.comparison.trials import try_federated, try_whole
from splitlearn.errors import TrunklineError
from splitlearn.planning import ModelFolder
from splitlearn.records import read_records
from splitlearn.simulation.demo import quiet_libraries
from splitlearn.simulation.federation import peak_memory_bytes
from splitlearn.tasks import SiloData, load_tokenizer, prepare_silo_data

_SAY_EVERY_SECONDS = 0.5
_MAX_ERROR_CHARACTERS = 1000  # the line is read back from the end of a log


def run_one(request: RunRequest) -> RunResult:
    """Read the rows, train as the mode says, evaluate on every silo's held-out rows.

    Sets torch's number of threads for the whole process.

    Raises:
        TrunklineError: Whatever ended it.
    """
    torch.set_num_threads(request.threads)
    data = prepare_rows(request)
    started = time.perf_counter()
    progress = _Progress()
    if request.kind in ("centralised", "alone"):
        trial = try_whole(request.job, request.model_folder, data, on_share=progress)
    else:
        trial = try_federated(request.job, request.model_folder, data, request.work_dir, on_share=progress)
    overall = trial.overall()
    return RunResult(
        fingerprint=request.fingerprint,
        mode=request.mode,
        seed=request.job.seed,
        task=request.job.task.kind,
        **overall.model_dump(),
        before=trial.overall_before(),
        silos=trial.silos,
        seconds=trial.seconds,
        wall_seconds=time.perf_counter() - started,
        bytes=trial.wire_bytes,
        evaluation_bytes=trial.evaluation_bytes,
        memory_bytes=peak_memory_bytes(),
        optimizer_steps=trial.optimizer_steps,
        rows_trained=trial.rows_trained,
        label_tokens=trial.label_tokens,
        last_round=trial.last_round,
        result_round=trial.result_round,
        curve=trial.curve,
    )


def prepare_rows(request: RunRequest) -> tuple[SiloData, ...]:
    """Read every silo's rows, in the roster's order, tokenised and with some held out.

    All modes of one seed get the same.

    Raises:
        DataError: A file, a row, a column or a label is wrong.
        ModelError: The tokenizer does not belong to the model.
    """
    source, base = request.source, request.base
    if source.split is not None:
        read = read_records(Path(source.split.file), layout=source.layout, columns=source.mapping)
        parts = dealt(tuple(read), source.split)
    else:
        parts = tuple(
            tuple(read_records(Path(file), layout=source.layout, columns=source.mapping))
            for file in source.data.values()
        )
    folder = ModelFolder.open(request.model_folder)
    tokenizer = load_tokenizer(folder.path)
    vocab_size = folder.config.get("vocab_size")
    return tuple(
        prepare_silo_data(
            records,
            silo_name=silo,
            task=base.task,
            tokenizer=tokenizer,
            max_tokens=base.max_tokens,
            holdout=base.evaluation.holdout,
            seed=base.seed,
            vocab_size=vocab_size if isinstance(vocab_size, int) else None,
        )
        for silo, records in zip(source.silos, parts, strict=True)
    )


class _Progress:
    """Says how far the run is, but not too often."""

    def __init__(self) -> None:
        self._said_at = -math.inf

    def __call__(self, share: float) -> None:
        now = time.monotonic()
        if now - self._said_at >= _SAY_EVERY_SECONDS:
            self._said_at = now
            _say({"share": round(share, 4)})


def _say(content: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()


def run_file(asked: Path, answered: Path) -> int:
    """Run the request in a file; returns the exit code that :mod:`splitlearn.errors` documents."""
    try:
        with quiet_libraries():
            result = run_one(read_document(asked, RunRequest))
        write_document(answered, result)
    except TrunklineError as error:
        _say({"code": error.code, "error": error.message[:_MAX_ERROR_CHARACTERS]})
        return error.exit_code
    return 0
