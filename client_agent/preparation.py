"""What a silo does before it takes part: its layers, its rows, and whether both fit the specification."""

from dataclasses import dataclass
from pathlib import Path

from client_agent.data import Dataset
from splitlearn.errors import DataError
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


@dataclass(frozen=True)
class Prepared:
    """Everything that a silo needs to take part in a job.

    Attributes:
        spec: The job.
        silo: This silo.
        folder: The model's description, and the tensor files of bottom and top.
        cut: Where the model is cut for this silo.
        data: Its rows.
    """

    spec: JobSpec
    silo: str
    folder: ModelFolder
    cut: Cut
    data: SiloData


def cut_of(spec: JobSpec, silo: str, *, num_layers: int) -> Cut:
    """Return a silo's cut.

    Raises:
        SpecError: No such silo.
        CutError: It leaves nothing for the trunk.
    """
    wanted = spec.silos[spec.silo_index(silo)].cut
    return Cut(wanted.bottom_layers, wanted.top_layers, num_layers)


def prepare(spec: JobSpec, *, silo: str, dataset: Dataset, model_path: Path) -> Prepared:
    """Read the silo's rows for a job and look at its part of the model.

    Raises:
        DisagreementError: The rows are not what the specification asks for.
        DataError: The file is wrong.
        ModelError: Model, tokenizer or cut are wrong.
    """
    folder = ModelFolder.open(model_path)
    dataset.refuse_other_task(spec.task.kind)
    return Prepared(
        spec=spec,
        silo=silo,
        folder=folder,
        cut=cut_of(spec, silo, num_layers=folder.num_layers),
        data=_read(spec, silo=silo, dataset=dataset, folder=folder),
    )


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
