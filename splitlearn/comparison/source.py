"""Where a comparison's rows come from: a file per silo, or one file dealt out unevenly. Torch-free."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from splitlearn.frozen import Frozen
from splitlearn.records import ColumnMapping, Layout
from splitlearn.spec import MAX_SILOS, Name

MAX_WORDS = 64

FilePath = Annotated[str, Field(min_length=1, max_length=4096)]
Share = Annotated[float, Field(gt=0, le=1e9)]


class Skew(Frozen):
    """What kinds of rows a silo mostly has: each kind has one or more home silos.

    Attributes:
        column: The rows' kind is this column's value; with ``words``, the words are looked for in it.
        words: The rows' kind is the first of these that occurs in the row, in capitals or not. Rows with
            none of them have no home.
        strength: Probability that a row goes to a home of its kind instead of to any silo.
    """

    column: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    words: tuple[Annotated[str, Field(min_length=1, max_length=256)], ...] = Field(
        default=(), max_length=MAX_WORDS
    )
    strength: float = Field(default=0.8, gt=0, le=1)

    @model_validator(mode="after")
    def _has_kinds(self) -> Self:
        if self.column is None and not self.words:
            raise ValueError("skew: names neither a column nor words; say what makes rows differ")
        return self


class Split(Frozen):
    """One file, dealt out to silos.

    Attributes:
        file: The file.
        silos: Names of the silos, in the roster's order.
        shares: Expected share of each silo, scaled to sum up to one; the i-th has one part in i if None.
        skew: What kinds of rows a silo mostly has; None: all silos have the same mixture.
        max_rows: Deal out at most so many rows, drawn from the whole file.
        seed: Changes who gets which row. Every run of a comparison has the same rows.
    """

    file: FilePath
    silos: tuple[Name, ...] = Field(min_length=1, max_length=MAX_SILOS)
    shares: tuple[Share, ...] | None = None
    skew: Skew | None = None
    max_rows: int | None = Field(default=None, ge=2)
    seed: int = Field(default=0, ge=0, lt=1 << 63)

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        if self.shares is not None and len(self.shares) != len(self.silos):
            raise ValueError(f"shares: {len(self.shares)} for {len(self.silos)} silos; give one for each")
        if len(set(self.silos)) < len(self.silos):
            raise ValueError("silos: a name is listed twice; every silo needs its own")
        return self


class Source(Frozen):
    """All of a comparison's rows.

    Attributes:
        data: Each silo's own file; empty with ``split``.
        split: One file for all.
        columns: New names for the files' columns: ``{name in templates: column in the file}``.
        layout: How rows lie in the files' objects.
    """

    data: dict[Name, FilePath] = Field(default={}, max_length=MAX_SILOS)
    split: Split | None = None
    columns: dict[str, str] = Field(default={}, max_length=256)
    layout: Layout = Layout.ROWS

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if bool(self.data) is (self.split is not None):
            what = "both data and split" if self.data else "neither data nor split"
            raise ValueError(f"{what}; give a file for each silo (data), or one file for all (split)")
        if len(set(self.columns.values())) < len(self.columns):
            raise ValueError("columns: one column has two names; keep one of them")
        return self

    @property
    def silos(self) -> tuple[str, ...]:
        """The roster."""
        return self.split.silos if self.split is not None else tuple(self.data)

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that is read, each once."""
        return tuple(dict.fromkeys(self._files()))

    @property
    def mapping(self) -> ColumnMapping:
        """The new names of columns."""
        return ColumnMapping(tuple(self.columns.items()))

    def below(self, root: Path) -> Self:
        """Return the same with absolute paths, relative ones taken from ``root``."""
        data = {silo: str((root / file).absolute()) for silo, file in self.data.items()}
        if self.split is None:
            return self.model_copy(update={"data": data})
        file = str((root / self.split.file).absolute())
        return self.model_copy(update={"split": self.split.model_copy(update={"file": file})})

    def _files(self) -> Iterator[Path]:
        if self.split is not None:
            yield Path(self.split.file)
        yield from map(Path, self.data.values())
