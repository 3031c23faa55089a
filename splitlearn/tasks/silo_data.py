"""A silo's data, from its file to the rows that it trains and is evaluated on."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from splitlearn.records import (
    DEFAULT_LIMITS,
    ColumnMapping,
    DataFormat,
    Layout,
    ReadLimits,
    Record,
    read_records,
)
from splitlearn.tasks.examples import Prepared, prepare
from splitlearn.tasks.holdout import Split, split_holdout
from splitlearn.tasks.rows import Example, TokenRow
from splitlearn.tasks.texts import Task
from splitlearn.tasks.tokenizing import TextTokenizer


@dataclass(frozen=True)
class DataReport:
    """What became of a silo's rows. Stays at the silo.

    Attributes:
        rows: Rows read.
        training: Rows to train on.
        heldout: Rows held out.
        truncated: Rows that lost tokens to ``max_tokens``.
        prompts_cut: Of these, rows whose prompt was cut on its left.
        answers_cut: Of these, rows whose answer or whole text was cut on its right.
        dropped: Rows without a token to learn.
        training_tokens: Tokens of one pass over the training rows.
        label_tokens: Of these, tokens that the loss counts.
        max_tokens: The limit that was applied.
        tokens_cut_left: Tokens that prompts lost on their left.
        tokens_cut_right: Tokens that answers or whole texts lost on their right.
    """

    rows: int
    training: int
    heldout: int
    truncated: int
    prompts_cut: int
    answers_cut: int
    dropped: int
    training_tokens: int
    label_tokens: int
    max_tokens: int
    tokens_cut_left: int = 0
    tokens_cut_right: int = 0

    def describe(self) -> str:
        """Return one sentence for people."""
        sentence = f"{self.rows} rows: {self.training} to train on, {self.heldout} held out"
        if self.truncated:
            sentence += (
                f"; {self.truncated} cut to {self.max_tokens} tokens "
                f"({self.prompts_cut} prompts on the left by {self.tokens_cut_left} tokens, "
                f"{self.answers_cut} answers or texts on the right by {self.tokens_cut_right})"
            )
        if self.dropped:
            sentence += f"; {self.dropped} without a token to learn dropped"
        return sentence


@dataclass(frozen=True, repr=False)
class SiloData:
    """Everything that one silo learns from and is evaluated on.

    Attributes:
        name: The silo.
        training: Rows to train on, in the order of the data, at least one.
        heldout: Examples to evaluate on, in the order of the data, at least one.
        report: What became of the rows.
    """

    name: str
    training: tuple[TokenRow, ...]
    heldout: tuple[Example, ...]
    report: DataReport

    def __repr__(self) -> str:
        """Say counts and no token: rows are private text."""
        return f"SiloData({self.name!r}, {self.report.describe()})"


def load_silo_data(
    path: Path,
    *,
    silo_name: str,
    task: Task,
    tokenizer: TextTokenizer,
    max_tokens: int,
    holdout: float,
    seed: int,
    columns: ColumnMapping | None = None,
    data_format: DataFormat | None = None,
    layout: Layout = Layout.ROWS,
    vocab_size: int | None = None,
    limits: ReadLimits = DEFAULT_LIMITS,
) -> SiloData:
    """Read, tokenise and split the data of one silo.

    Args:
        path: The file: plain text, JSONL, CSV or TSV.
        silo_name: The silo, as in the specification's roster.
        task: The specification's task.
        tokenizer: The model's tokenizer.
        max_tokens: The specification's longest row.
        holdout: Share of the rows to hold out, in (0, 1).
        seed: The specification's seed.
        columns: New names of the file's columns.
        data_format: The format, where the path's suffix does not say it.
        layout: How rows lie in the file's objects.
        vocab_size: Rows of the model's embedding, where known.
        limits: What the file may hold.

    Raises:
        DataError: The file, a row, a column or a label is wrong, or there are too few rows.
        ModelError: The tokenizer does not belong to the model.
    """
    records = read_records(path, data_format=data_format, layout=layout, columns=columns, limits=limits)
    return prepare_silo_data(
        records,
        silo_name=silo_name,
        task=task,
        tokenizer=tokenizer,
        max_tokens=max_tokens,
        holdout=holdout,
        seed=seed,
        vocab_size=vocab_size,
    )


def prepare_silo_data(
    records: Iterable[Record],
    *,
    silo_name: str,
    task: Task,
    tokenizer: TextTokenizer,
    max_tokens: int,
    holdout: float,
    seed: int,
    vocab_size: int | None = None,
) -> SiloData:
    """Tokenise and split rows that are at hand; see :func:`load_silo_data`."""
    sources: dict[str, None] = {}
    prepared = prepare(
        _noting(records, sources),
        task=task,
        tokenizer=tokenizer,
        max_tokens=max_tokens,
        vocab_size=vocab_size,
    )
    split = split_holdout(
        prepared.examples, share=holdout, seed=seed, silo_name=silo_name, source=", ".join(sources)
    )
    training = tuple(example.target for example in split.training)
    report = _report(prepared, split, training, max_tokens=max_tokens)
    return SiloData(name=silo_name, training=training, heldout=split.heldout, report=report)


def _noting(records: Iterable[Record], sources: dict[str, None]) -> Iterator[Record]:
    for record in records:
        sources[record.source] = None
        yield record


def _report(
    prepared: Prepared, split: Split, training: tuple[TokenRow, ...], *, max_tokens: int
) -> DataReport:
    return DataReport(
        rows=prepared.rows,
        training=len(training),
        heldout=len(split.heldout),
        truncated=prepared.truncated,
        prompts_cut=prepared.prompts_cut,
        answers_cut=prepared.answers_cut,
        dropped=prepared.dropped,
        training_tokens=sum(len(row.input_ids) for row in training),
        label_tokens=sum(row.num_label_tokens for row in training),
        max_tokens=max_tokens,
        tokens_cut_left=prepared.tokens_cut_left,
        tokens_cut_right=prepared.tokens_cut_right,
    )
