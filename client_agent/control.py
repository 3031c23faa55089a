"""What a job's process asks of the control plane; what runs in between is the same whoever answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from splitlearn.control_plane.schemas import (
    ApprovalBody,
    BlobRef,
    FinishBody,
    LogLine,
    MetricPoint,
    SiloLease,
)
from splitlearn.identity import Identity, TrustStore
from splitlearn.link import Connect
from splitlearn.spec import JobSpec


@dataclass(frozen=True, slots=True)
class FetchedModel:
    """A silo's part of a registered model, on this machine.

    Attributes:
        path: Folder with config, tokenizer, index and the tensor files of bottom and top.
        source: What the model is called outside the federation.
    """

    path: Path
    source: str


class JobControl(Protocol):
    """The control plane, for one job of one silo. Every call outlasts the control plane's absence."""

    async def fetch_model(self, spec: JobSpec) -> FetchedModel:
        """Download what this silo needs of the job's model, or find it in the cache."""

    async def approve(self, body: ApprovalBody) -> None:
        """Say this silo's word on the job."""

    async def attach(self, attempt: str) -> SiloLease:
        """Join the trunk as a new attempt."""

    async def finish(self, body: FinishBody) -> None:
        """Say how this silo's part came out."""

    async def send_metrics(self, points: Sequence[MetricPoint]) -> None:
        """Hand over numbers."""

    async def send_logs(self, lines: Sequence[LogLine]) -> None:
        """Hand over lines of the log: words and numbers."""

    async def download(self, blob: BlobRef, target: Path) -> None:
        """Put a blob into a file, verified."""

    def connector(self, lease: SiloLease) -> Connect:
        """Return what opens connections to the worker under a lease."""

    def identity(self) -> Identity:
        """Return who this silo is."""

    def trust(self) -> TrustStore:
        """Return whom this silo believes now."""

    def note_epoch(self, epoch: int) -> bool:
        """Keep an epoch that was seen; False where a higher one was."""
