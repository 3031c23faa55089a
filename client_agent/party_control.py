"""The control plane, asked by a job's own process in a session that it shares with its supervisor."""

from collections.abc import Sequence
from pathlib import Path

from client_agent.control import FetchedModel
from splitlearn.control_plane.blobs import fetch_blob
from splitlearn.control_plane.client import PartyClient
from splitlearn.control_plane.connecting import gateway_connector
from splitlearn.control_plane.models import fetch_manifest, fetch_model, manifest_digest
from splitlearn.control_plane.schemas import (
    ApprovalBody,
    BlobRef,
    FinishBody,
    LogLine,
    MetricPoint,
    SiloLease,
)
from splitlearn.control_plane.state_folder import StateFolder
from splitlearn.identity import Identity, TrustStore
from splitlearn.link import Connect
from splitlearn.planning import Role
from splitlearn.spec import JobSpec


class PartyControl:
    """What a job's process asks; see :class:`~client_agent.control.JobControl`.

    Args:
        client: Of this silo.
        state: This silo's identity.
        job_id: The job.
        silo: This silo.
        models: Cache of model files.
    """

    def __init__(
        self, client: PartyClient, *, state: StateFolder, job_id: str, silo: str, models: Path
    ) -> None:
        self._client, self._state = client, state
        self._job_id, self._silo, self._models = job_id, silo, models

    async def fetch_model(self, spec: JobSpec) -> FetchedModel:
        """Download the files of bottom and top, and the tokenizer."""
        digest = manifest_digest(spec.model)
        cut = spec.silos[spec.silo_index(self._silo)].cut
        manifest = await fetch_manifest(self._client, digest, self._models)
        path = await fetch_model(
            self._client,
            digest,
            roles=(Role.BOTTOM, Role.TOP),
            bottom_layers=cut.bottom_layers,
            top_layers=cut.top_layers,
            cache=self._models,
            tokenizer=True,
        )
        return FetchedModel(path, manifest.source)

    async def approve(self, body: ApprovalBody) -> None:
        """Say this silo's word on the job."""
        await self._client.put_approval(self._job_id, body)

    async def attach(self, attempt: str) -> SiloLease:
        """Join the trunk as a new attempt."""
        return await self._client.attach(self._job_id, attempt)

    async def finish(self, body: FinishBody) -> None:
        """Say how this silo's part came out."""
        await self._client.finish(self._job_id, body)

    async def send_metrics(self, points: Sequence[MetricPoint]) -> None:
        """Hand over numbers."""
        await self._client.post_metrics(self._job_id, points)

    async def send_logs(self, lines: Sequence[LogLine]) -> None:
        """Hand over lines of the log: words and numbers."""
        await self._client.post_logs(self._job_id, lines)

    async def download(self, blob: BlobRef, target: Path) -> None:
        """Put a blob into a file, verified."""
        await fetch_blob(self._client, blob, target)

    def connector(self, lease: SiloLease) -> Connect:
        """Return what opens connections to the worker under a lease."""
        return gateway_connector(
            self._client, job=self._job_id, replica=lease.replica, epoch=lease.epoch, silo=self._silo
        )

    def identity(self) -> Identity:
        """Return who this silo is."""
        return self._state.identity()

    def trust(self) -> TrustStore:
        """Return whom this silo believes now."""
        return self._state.trust()

    def note_epoch(self, epoch: int) -> bool:
        """Keep an epoch that was seen; False where a higher one was."""
        return self._state.note_epoch(self._job_id, epoch)
