"""The files by which one run of a comparison is asked for, and answers. Torch-free.

Neither holds a row: the request names the files that the run reads.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from splitlearn.comparison.modes import ModeKind
from splitlearn.comparison.source import Source
from splitlearn.errors import StorageError
from splitlearn.frozen import Frozen
from splitlearn.simulation.json_files import write_json
from splitlearn.spec import JobSpec

MAX_FILE_BYTES = 64 << 20

Document = TypeVar("Document", bound=BaseModel)


class RunRequest(Frozen):
    """What one run is asked to do.

    Attributes:
        mode: Name of the mode.
        kind: What it is.
        base: The job of all modes with this run's seed: its roster, and how rows become tokens.
        job: The job of this mode.
        source: The rows.
        model_folder: The model.
        threads: Threads of torch, per party.
        work_dir: A folder for this run only; whoever asks removes it.
        fingerprint: Of all that the result depends on.
    """

    mode: str
    kind: ModeKind
    base: JobSpec
    job: JobSpec
    source: Source
    model_folder: Path
    threads: int = Field(ge=1, le=1024)
    work_dir: Path
    fingerprint: str


class SiloScore(Frozen):
    """What became of one silo's rows, and the run's evaluation on those held out.

    Attributes:
        name: The silo.
        rows: Its rows.
        training: Rows to train on.
        heldout: Rows held out.
        truncated: Rows that lost tokens to ``max_tokens``.
        dropped: Rows without a token to learn.
        evaluated: Held-out rows that were evaluated.
        eval_loss: Mean loss per label token in nats.
        num_tokens: Label tokens of the evaluation.
        accuracy: Share of rows answered rightly; None outside ``choice``.
        scores: What else there is to say.
    """

    name: str
    rows: int
    training: int
    heldout: int
    truncated: int
    dropped: int
    evaluated: int
    eval_loss: float
    num_tokens: int
    accuracy: float | None = None
    scores: dict[str, float] = Field(default={})


class CurvePoint(Frozen):
    """Mean training loss over one stretch of a run: ``at`` is its end, as a share of the run."""

    at: float
    loss: float


class Overall(Frozen):
    """An evaluation over all silos' held-out rows.

    Attributes:
        metric_name: ``accuracy`` for ``choice``, else ``eval_loss``.
        metric: Its value.
        eval_loss: Mean loss per label token, in nats.
        scores: The task's other scores: means over the silos, weighted by rows.
    """

    metric_name: Literal["accuracy", "eval_loss"]
    metric: float
    eval_loss: float
    scores: dict[str, float] = Field(default={})


class RunResult(Overall):
    """What one run came to; seconds are of this machine, on which all parties of a run are one process.

    Attributes:
        fingerprint: The request's.
        mode: The mode's name.
        seed: Of the run.
        task: Kind of the task.
        before: The same evaluation of what the run began with; None where that was not evaluated.
        silos: The evaluation by silo, in the roster's order.
        seconds: From the first step to the last: the sum of the steps' or turns' times.
        wall_seconds: Of the whole run after the rows were read: loading, training, evaluation, checkpoints.
        bytes: Sealed bytes of training, both directions, over all silos; 0 where nothing is sent.
        evaluation_bytes: The same of evaluations.
        memory_bytes: Largest resident memory of the run's process, which holds all its parties.
        optimizer_steps: Of the trunk, or of the whole model.
        rows_trained: Rows that were read in training, counted as often as they were read.
        label_tokens: Their label tokens.
        last_round: The last round that was trained; fewer than planned where evaluations ended the run.
        result_round: The round that the evaluation is of; 0 for what the run began with.
        curve: Training loss along the run.
    """

    fingerprint: str
    mode: str
    seed: int
    task: str
    before: Overall | None = None
    silos: tuple[SiloScore, ...] = Field(min_length=1)
    seconds: float
    wall_seconds: float
    bytes: int
    evaluation_bytes: int
    memory_bytes: int
    optimizer_steps: int
    rows_trained: int
    label_tokens: int
    last_round: int | None = None
    result_round: int | None = None
    curve: tuple[CurvePoint, ...] = ()

    def silo(self, name: str) -> SiloScore:
        """Return the evaluation on one silo's rows."""
        return next(silo for silo in self.silos if silo.name == name)


def write_document(path: Path, document: BaseModel) -> None:
    """Write a request or result, whole or not at all.

    Raises:
        StorageError: The file cannot be written.
    """
    content: Mapping[str, object] = document.model_dump(mode="json")
    write_json(path, content)


def read_document(path: Path, kind: type[Document]) -> Document:
    """Read a request or result.

    Raises:
        StorageError: Missing, too large, or not what it should be.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise StorageError(f"{path} has more than {MAX_FILE_BYTES} bytes; begin anew (--fresh)")
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise StorageError(f"{path} cannot be read as a {kind.__name__}; begin anew (--fresh)") from error
