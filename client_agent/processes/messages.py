"""What supervisor, forker and a job's process tell each other: one JSON object per line."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from splitlearn.control_plane.schemas import JobId, ProcessId, SiloJob, Word
from splitlearn.spec import MIN_SILOS_AVERAGED

MAX_LINE_BYTES = 8 << 20
"""A specification of 1 MiB in base 64, with room."""


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Order(_Message):
    """Supervisor to forker, beside the socket on which the new process will be told more.

    Attributes:
        boot_id: The supervisor's: its processes log in as the one process that they are a part of.
        min_metric_rows: Losses and scores over fewer rows are told to nobody.
        min_silos_in_sum: Fewest silos over which this one averages its blocks.
    """

    job_id: JobId
    state_dir: Path
    boot_id: ProcessId
    threads: int = Field(ge=1)
    device: str
    log_format: Literal["console", "json"] = "console"
    min_metric_rows: int = Field(default=1, ge=1)
    min_silos_in_sum: int = Field(default=MIN_SILOS_AVERAGED, ge=MIN_SILOS_AVERAGED)


class Loaded(_Message):
    """Forker to supervisor, first: everything is loaded, orders are carried out at once."""

    kind: Literal["loaded"] = "loaded"


class Forked(_Message):
    """Forker to supervisor: the process of this job's order."""

    kind: Literal["forked"] = "forked"
    job_id: JobId
    pid: int


class Exited(_Message):
    """Forker to supervisor: a process is gone; its code, or minus the signal's number."""

    kind: Literal["exited"] = "exited"
    pid: int
    code: int


class Update(_Message):
    """Supervisor to a job's process: the job as the control plane sees it now."""

    kind: Literal["update"] = "update"
    job: SiloJob


class Stop(_Message):
    """Supervisor to a job's process: end in order, soon."""

    kind: Literal["stop"] = "stop"


class PhaseBegan(_Message):
    """A job's process to the supervisor: what it does now."""

    kind: Literal["phase"] = "phase"
    phase: Literal["preparing", "waiting", "training", "exporting"]
    message: str = ""


class Ended(_Message):
    """A job's process to the supervisor, last: how this silo's part came out.

    Attributes:
        outcome: ``finished`` with its result, ``refused`` at approval, ``failed`` for a reason that
            another process would meet too, or ``ended`` because the job or the supervisor did.
    """

    kind: Literal["ended"] = "ended"
    outcome: Literal["finished", "refused", "failed", "ended"]
    code: Word = "completed"
    message: str = ""


FromForker = TypeAdapter[Loaded | Forked | Exited](
    Annotated[Loaded | Forked | Exited, Field(discriminator="kind")]
)
ToJob = TypeAdapter[Update | Stop](Annotated[Update | Stop, Field(discriminator="kind")])
FromJob = TypeAdapter[PhaseBegan | Ended](Annotated[PhaseBegan | Ended, Field(discriminator="kind")])


def line(message: BaseModel) -> bytes:
    """Return a message as it is written to a socket."""
    return message.model_dump_json().encode() + b"\n"
