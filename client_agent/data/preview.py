"""What a task makes of a data set's rows, for the owner's eyes: what is read, what is learned, what is cut.

Loads torch, by way of the tokenizers; the commands import it where they need it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from client_agent.data.dataset import Dataset
from splitlearn.records import Record
from splitlearn.tasks import Prepared, RowTexts, Task, TextTokenizer, load_tokenizer, prepare, row_texts
from splitlearn.tasks.chat import chat_texts, refuse_without_chat


@dataclass(frozen=True)
class PreviewedRow:
    """One row as a task sees it.

    Attributes:
        line: Of the file.
        reads: What the model reads and does not learn; empty where all is learned.
        learns: What the loss is taken on.
        others: The other candidates of a choice.
        cut_left, cut_right: Tokens that it loses; None without a tokenizer.
    """

    line: int
    reads: str
    learns: str
    others: tuple[str, ...]
    cut_left: int | None = None
    cut_right: int | None = None


@dataclass(frozen=True)
class Preview:
    """The first rows, and with a tokenizer what the whole file loses.

    Attributes:
        rows: The first rows.
        prepared: All rows, in tokens; None without a tokenizer.
        max_tokens: The limit that was applied.
    """

    rows: tuple[PreviewedRow, ...]
    prepared: Prepared | None
    max_tokens: int

    def counts(self) -> dict[str, int] | None:
        """Return what truncation does to the whole file; None without a tokenizer."""
        if self.prepared is None:
            return None
        return {
            "rows": self.prepared.rows,
            "max_tokens": self.max_tokens,
            "rows_truncated": self.prepared.truncated,
            "prompts_cut": self.prepared.prompts_cut,
            "tokens_cut_left": self.prepared.tokens_cut_left,
            "answers_cut": self.prepared.answers_cut,
            "tokens_cut_right": self.prepared.tokens_cut_right,
            "rows_dropped": self.prepared.dropped,
        }


def preview(
    dataset: Dataset, *, task: Task, num_rows: int, model_folder: Path | None, max_tokens: int
) -> Preview:
    """Render the first rows of a data set for a task.

    Args:
        dataset: The data set.
        task: The task.
        num_rows: How many rows.
        model_folder: Whose tokenizer counts; None for none.
        max_tokens: Longest row in tokens.

    Raises:
        DataError: The file, a column or a label is wrong.
        ModelError: The folder has no tokenizer, or one without a chat template that the task asks for.
    """
    first = list(islice(dataset.records(), num_rows))
    tokenizer = None if model_folder is None else load_tokenizer(model_folder)
    texts = list(row_texts(first, task=task))
    if tokenizer is None:
        return Preview(tuple(map(_plain, first, texts)), None, max_tokens)

    def counted(records: Iterable[Record]) -> Prepared:
        return prepare(records, task=task, tokenizer=tokenizer, max_tokens=max_tokens)

    rows = tuple(
        _counted(record, row, counted([record]), tokenizer) for record, row in zip(first, texts, strict=True)
    )
    return Preview(rows, counted(dataset.records()), max_tokens)


def _plain(record: Record, texts: RowTexts) -> PreviewedRow:
    reads = texts.prompt or ""
    if texts.messages:
        reads = "\n".join(f"[{message['role']}] {message['content']}" for message in texts.messages)
    return _row(record, texts, reads=reads, learns=texts.answers[texts.right])


def _counted(record: Record, texts: RowTexts, prepared: Prepared, tokenizer: TextTokenizer) -> PreviewedRow:
    reads, learns = texts.prompt or "", texts.answers[texts.right]
    if texts.messages:
        refuse_without_chat(tokenizer)
        reads, learns = chat_texts(texts.messages, learns, tokenizer=tokenizer)
    return _row(
        record,
        texts,
        reads=reads,
        learns=learns,
        cut_left=prepared.tokens_cut_left,
        cut_right=prepared.tokens_cut_right,
    )


def _row(
    record: Record,
    texts: RowTexts,
    *,
    reads: str,
    learns: str,
    cut_left: int | None = None,
    cut_right: int | None = None,
) -> PreviewedRow:
    others = tuple(answer for index, answer in enumerate(texts.answers) if index != texts.right)
    return PreviewedRow(record.line, reads, learns, others, cut_left, cut_right)
