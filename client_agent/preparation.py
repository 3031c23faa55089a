"""What a silo does before it takes part: its layers, its rows, and whether both fit the specification."""

from dataclasses import dataclass
from pathlib import Path

from client_agent.data import Dataset
from splitlearn.errors import DataError, StorageError
from splitlearn.partition import StartingPoint
from splitlearn.planning import Cut, ModelFolder
from splitlearn.records import MissingColumnError
from splitlearn.spec import JobSpec
from splitlearn.tasks import SiloData, Task, load_silo_data, load_tokenizer, refuse_unfit_row


class DisagreementError(DataError):
    """The silo's rows are not what the specification asks for; told to others by counts and column names."""

    code = "data_disagrees"

    def __init__(self, message: str, *, public: str) -> None:
        super().__init__(message)
        self.public = public


class StartGoneError(StorageError):
    """The silo's result of the job that this one begins at is gone."""

    code = "start_gone"
    public = "its result of the job that this one begins at (start_from) is gone"


@dataclass(frozen=True)
class Prepared:
    """Everything that a silo needs to take part in a job.

    Attributes:
        spec: The job.
        silo: This silo.
        folder: The model's description, and the tensor files of bottom and top.
        cut: Where the model is cut for this silo.
        data: Its rows.
        start: The silo's own result of the job that this one begins at; None: it begins at the model.
    """

    spec: JobSpec
    silo: str
    folder: ModelFolder
    cut: Cut
    data: SiloData
    start: StartingPoint | None = None

    @property
    def blocks_folder(self) -> ModelFolder:
        """What bottom and top are loaded from: the model, or an earlier result that is a whole model."""
        return self.start.folder if self.start is not None else self.folder


def cut_of(spec: JobSpec, silo: str, *, num_layers: int) -> Cut:
    """Return a silo's cut.

    Raises:
        SpecError: No such silo.
        CutError: It leaves nothing for the trunk.
    """
    wanted = spec.silos[spec.silo_index(silo)].cut
    return Cut(wanted.bottom_layers, wanted.top_layers, num_layers)


def prepare(
    spec: JobSpec, *, silo: str, dataset: Dataset, model_path: Path, start: Path | None = None
) -> Prepared:
    """Read the silo's rows for a job and look at its part of the model.

    Args:
        spec: The job.
        silo: This silo.
        dataset: Its rows.
        model_path: Its part of the model.
        start: The silo's own result of the job that this one begins at; None for none.

    Raises:
        DisagreementError: The rows are not what the specification asks for.
        DataError: The file is wrong.
        ModelError: Model, tokenizer, cut or the earlier result are wrong.
        StartGoneError: The earlier result is not where it was left.
    """
    folder = ModelFolder.open(model_path)
    dataset.refuse_other_task(spec.task.kind)
    return Prepared(
        spec=spec,
        silo=silo,
        folder=folder,
        cut=cut_of(spec, silo, num_layers=folder.num_layers),
        data=_read(spec, silo=silo, dataset=dataset, folder=folder),
        start=None if start is None else open_start(spec, start, folder=folder),
    )


def open_start(spec: JobSpec, start: Path, *, folder: ModelFolder) -> StartingPoint:
    """Look at the silo's own result of the job that this one begins at.

    Raises:
        StartGoneError: It is not where it was left.
        StartError: It does not fit.
    """
    if not start.is_dir():
        raise StartGoneError(
            f"start_from: this silo took part in job {spec.start_from}, but its result is not in {start} any "
            "more; put it back from a copy, or submit the job without this silo or without start_from"
        )
    return StartingPoint.open(start, base=folder, adapter=spec.adapter)


def _read(spec: JobSpec, *, silo: str, dataset: Dataset, folder: ModelFolder) -> SiloData:
    vocab_size = folder.config.get("vocab_size")
    try:
        _refuse_missing_columns(dataset, spec.task)
        return load_silo_data(
            dataset.path,
            silo_name=silo,
            task=spec.task,
            tokenizer=load_tokenizer(folder.path),
            max_tokens=spec.max_tokens,
            holdout=spec.evaluation.holdout,
            seed=spec.seed,
            columns=dataset.mapping,
            data_format=dataset.data_format,
            layout=dataset.layout,
            vocab_size=vocab_size if isinstance(vocab_size, int) else None,
        )
    except MissingColumnError as error:
        raise _columns_missing(dataset, error.column) from error


def _refuse_missing_columns(dataset: Dataset, task: Task) -> None:
    """Look at the first row before all are tokenised."""
    refuse_unfit_row(next(dataset.records()), task=task)


def _columns_missing(dataset: Dataset, column: str) -> DisagreementError:
    num_rows = num_lacking = 0
    for record in dataset.records():
        num_rows += 1
        num_lacking += column not in record.columns
    counted = f"{num_lacking} of {num_rows} rows have no column {column!r}"
    return DisagreementError(
        f"data set {dataset.name!r}: {counted}, which the job's task reads; map a column to it "
        f"(trunkline-agent data add {dataset.name} FILE --replace --columns {column}=...), or correct the "
        "job's templates",
        public=counted,
    )
