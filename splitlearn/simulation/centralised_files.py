"""The files by which the centralised reference is asked for, and answers, as a process of its own.

Request and result are JSON. The request holds token rows: it stays on the machine that asks, and only its
owner may read it.
"""

import os
from pathlib import Path
from typing import Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from splitlearn.errors import StorageError
from splitlearn.spec import JobSpec
from splitlearn.tasks import Example, Score, SiloData, TokenRow

MAX_FILE_BYTES = 4 << 30

Document = TypeVar("Document", bound=BaseModel)


class _Document(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", ser_json_bytes="hex", val_json_bytes="hex", ser_json_inf_nan="strings"
    )


class RequestedSilo(_Document):
    """One silo's rows."""

    name: str
    training: tuple[TokenRow, ...] = Field(min_length=1, repr=False)
    heldout: tuple[Example, ...] = Field(min_length=1, repr=False)

    @classmethod
    def of(cls, data: SiloData) -> Self:
        """Take over what the reference needs of a silo's data."""
        return cls(name=data.name, training=data.training, heldout=data.heldout)


class CentralisedRequest(_Document):
    """What the reference process is asked to do.

    Attributes:
        spec: The job.
        model_folder: The model.
        threads: Threads of torch.
        silos: Rows of every silo, in roster order.
    """

    spec: JobSpec
    model_folder: Path
    threads: int = Field(default=1, ge=1, le=1024)
    silos: tuple[RequestedSilo, ...] = Field(min_length=1)


class SiloAnswer(_Document):
    """The reference's evaluation on one silo's held-out rows.

    Attributes:
        name: The silo.
        eval_loss: Mean loss per label token in nats.
        num_tokens: Label tokens.
        accuracy: Share of rows whose right answer scored best; None outside ``choice``.
        scores: What else there is to say of a choice, or of generated summaries.
    """

    name: str
    eval_loss: float
    num_tokens: int
    accuracy: float | None
    scores: tuple[Score, ...] = ()


class CentralisedAnswer(_Document):
    """What the reference process writes. A loss that is not a number is written as "NaN".

    Attributes:
        losses: Mean loss of every step in nats.
        eval_loss: Token-weighted mean over the silos' held-out rows.
        seconds_per_step: Median.
        silos: Each silo's evaluation, in roster order.
    """

    losses: tuple[float, ...]
    eval_loss: float
    seconds_per_step: float
    silos: tuple[SiloAnswer, ...]


def write_document(path: Path, document: BaseModel) -> None:
    """Write a request or answer whole or not at all, readable by its owner only.

    Raises:
        StorageError: The file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.writing")
    text = document.model_dump_json().encode()
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode=0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(
            f"cannot write {path} ({len(text)} bytes): {error}; free space or choose another folder"
        ) from error


def read_document(path: Path, kind: type[Document], *, max_bytes: int = MAX_FILE_BYTES) -> Document:
    """Read a request or answer.

    Raises:
        StorageError: Missing, too large, or not what it should be.
    """
    try:
        num_bytes = path.stat().st_size
        if num_bytes > max_bytes:
            raise StorageError(f"{path} has {num_bytes} bytes, the limit is {max_bytes}; send fewer rows")
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        # The cause is not shown: it may quote rows.
        raise StorageError(f"{path} cannot be read as a {kind.__name__}; write it anew") from error
