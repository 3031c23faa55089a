"""One data set of the silo: a file, how to read it, and what was found in it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from client_agent.data.survey import Survey, file_state, survey
from splitlearn.control_plane.schemas import DatasetAnnouncement, Sha256
from splitlearn.errors import DataError
from splitlearn.records import ColumnMapping, DataFormat, Layout, Record, read_records
from splitlearn.spec import Name

TaskKind = Literal["causal-lm", "sft", "summarise", "choice", "any"]
ANY_TASK: TaskKind = "any"


class Dataset(BaseModel):
    """A registered data set. Path and columns never leave the silo; see :meth:`announcement`.

    Attributes:
        name: What jobs call it.
        path: The file, absolute.
        data_format: How its rows are written.
        layout: How rows lie in its objects.
        preset: The preset that it was added by, whose prompt ``preview`` shows.
        columns: (name in templates, column in the file).
        task: The one kind of task that it may be used for, or ``any``.
        column_kinds: Kinds of value by column, columns already renamed.
        missing: Rows that lack a column which others have, by column.
        num_bytes, modified_ns: Of the file when it was read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    path: Path
    data_format: DataFormat
    layout: Layout = Layout.ROWS
    preset: str | None = None
    columns: tuple[tuple[str, str], ...] = ()
    task: TaskKind = ANY_TASK
    num_rows: int = Field(ge=1)
    schema_digest: Sha256
    column_kinds: dict[str, tuple[str, ...]]
    missing: dict[str, int] = {}
    num_bytes: int
    modified_ns: int

    @classmethod
    def read(
        cls,
        name: str,
        path: Path,
        *,
        data_format: DataFormat,
        columns: ColumnMapping,
        task: TaskKind,
        layout: Layout = Layout.ROWS,
        preset: str | None = None,
    ) -> Self:
        """Read a file and describe it.

        Raises:
            DataError: The file or some of its rows are wrong.
        """
        found = survey(path, data_format=data_format, layout=layout, columns=columns)
        return cls(
            name=name,
            path=path,
            data_format=data_format,
            layout=layout,
            preset=preset,
            columns=columns.pairs,
            task=task,
            **_facts(found),
        )

    @property
    def mapping(self) -> ColumnMapping:
        """New names of the file's columns."""
        return ColumnMapping(self.columns)

    @property
    def has_changed(self) -> bool:
        """Whether the file is another than the one that was read.

        Raises:
            DataError: It is gone.
        """
        return file_state(self.path) != (self.num_bytes, self.modified_ns)

    def records(self) -> Iterator[Record]:
        """Yield the file's rows, columns renamed.

        Raises:
            DataError: The file or a row is wrong.
        """
        return read_records(self.path, data_format=self.data_format, layout=self.layout, columns=self.mapping)

    def read_again(self) -> Self:
        """Return the data set as its file is now.

        Raises:
            DataError: The file or some of its rows are wrong now.
        """
        found = survey(self.path, data_format=self.data_format, layout=self.layout, columns=self.mapping)
        return self.model_copy(update=_facts(found))

    def serves(self, task_kind: str) -> bool:
        """Return whether the silo gives this data set to tasks of a kind."""
        return self.task in (ANY_TASK, task_kind)

    def refuse_other_task(self, task_kind: str) -> None:
        """Refuse a task of another kind.

        Raises:
            DataError: Says which kind it is for.
        """
        if not self.serves(task_kind):
            raise DataError(
                f"data set {self.name!r} is for {self.task}, the job's task is {task_kind}; choose another "
                "data set, or add it again for this task (--task)"
            )

    def announcement(self) -> DatasetAnnouncement:
        """Return all that the control plane is told."""
        return DatasetAnnouncement(
            name=self.name, task=self.task, num_rows=self.num_rows, schema_digest=self.schema_digest
        )


def _facts(found: Survey) -> dict[str, object]:
    return {
        "num_rows": found.num_rows,
        "schema_digest": found.schema_digest,
        "column_kinds": dict(found.columns),
        "missing": dict(found.missing),
        "num_bytes": found.num_bytes,
        "modified_ns": found.modified_ns,
    }
