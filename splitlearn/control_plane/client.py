"""The control plane as a logged-in party sees it: one method for each route."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from pydantic import BaseModel

from splitlearn.control_plane.errors import RefusedError
from splitlearn.control_plane.generation_schemas import (
    GenerationLease,
    GenerationReleaseBody,
    GenerationRenewAnswer,
    GenerationRenewBody,
    OpenedGeneration,
    OpenGenerationBody,
    SiloGeneration,
)
from splitlearn.control_plane.requests import Requests
from splitlearn.control_plane.schemas import (
    MAX_LOG_LINES,
    MAX_METRICS,
    Answer,
    ApprovalBody,
    AttachBody,
    CapabilitiesBody,
    CommitBody,
    DatasetAnnouncement,
    DatasetsBody,
    FinishBody,
    LeaseAnswer,
    LogLine,
    LogsBody,
    MetricPoint,
    MetricsBody,
    ReleaseBody,
    RenewAnswer,
    RenewBody,
    SiloJobsAnswer,
    SiloLease,
    TicketAnswer,
    TicketBody,
)
from splitlearn.control_plane.session import Session

Model = TypeVar("Model", bound=Answer)
T = TypeVar("T")
_NOT_SIGNED_IN = 401


class PartyClient:
    """Asks the control plane on behalf of a party.

    Every method waits while the control plane is away, with growing pauses, unless it has a patience; logs in
    again when the session has ended for its age; and raises

    - ``SupersededError`` or ``RevokedError`` when this process may speak for the party no more,
    - another ``RefusedError`` with the control plane's sentence when it refuses,
    - ``UnreachableError`` when patience is over.

    Args:
        session: Entered.
    """

    def __init__(self, session: Session) -> None:
        self.session = session

    @property
    def requests(self) -> Requests:
        """What requests go through; for what is not JSON."""
        return self.session.requests

    # Silos

    async def put_datasets(self, datasets: Sequence[DatasetAnnouncement]) -> None:
        """Announce every data set of the silo; what is left out is withdrawn."""
        await self._tell("PUT", "/silo/datasets", DatasetsBody(datasets=tuple(datasets)))

    async def silo_jobs(self, *, known: str = "", wait_seconds: float = 0) -> SiloJobsAnswer:
        """Return the jobs that want something of this silo.

        Args:
            known: Tag of an earlier answer; the next is held back until there is another one.
            wait_seconds: For so long at most, and no longer than ``MAX_WAIT_SECONDS``.
        """
        return await self._ask(
            "GET", f"/silo/jobs?known={known}&wait_seconds={wait_seconds:g}", SiloJobsAnswer
        )

    async def put_approval(self, job: str, body: ApprovalBody) -> None:
        """Approve or refuse to take part in a job."""
        await self._tell("PUT", f"/silo/jobs/{job}/approval", body)

    async def attach(self, job: str, attempt: str) -> SiloLease:
        """Begin an attempt to take part.

        Raises:
            NoLeaseError: No worker hosts the trunk yet.
            JobOverError: The job has ended.
        """
        return await self._ask("POST", f"/silo/jobs/{job}/attach", SiloLease, AttachBody(attempt=attempt))

    async def finish(self, job: str, body: FinishBody) -> None:
        """Say that this silo has its result, or cannot go on."""
        await self._tell("POST", f"/silo/jobs/{job}/finish", body)

    async def open_generation(self, job: str, attempt: str) -> OpenedGeneration:
        """Open a session to generate with what a job trained; the same attempt again opens no other."""
        body = OpenGenerationBody(attempt=attempt)
        return await self._ask("POST", f"/silo/jobs/{job}/generations", OpenedGeneration, body)

    async def generation(
        self, job: str, generation: str, *, patience_seconds: float | None = None
    ) -> SiloGeneration:
        """Return how a session stands; keeps it open."""
        path = f"/silo/jobs/{job}/generations/{generation}"
        return await self._ask("GET", path, SiloGeneration, patience_seconds=patience_seconds)

    async def end_generation(
        self, job: str, generation: str, *, patience_seconds: float | None = None
    ) -> None:
        """End a session."""
        path = f"/silo/jobs/{job}/generations/{generation}"
        await self._tell("DELETE", path, None, patience_seconds=patience_seconds)

    # Workers

    async def put_capabilities(self, body: CapabilitiesBody) -> None:
        """Say what this worker has."""
        await self._tell("PUT", "/worker/capabilities", body)

    async def take_lease(self, job: str, replica: int, epoch: int) -> LeaseAnswer:
        """Ask whether this worker is to host a trunk under this epoch.

        Raises:
            LeaseLostError: It is not.
        """
        return await self._ask("GET", f"{_lease(job, replica)}?epoch={epoch}", LeaseAnswer)

    async def renew_lease(
        self, job: str, replica: int, body: RenewBody, *, patience_seconds: float
    ) -> RenewAnswer:
        """Keep a lease, and learn what people want of the job.

        Raises:
            LeaseLostError: It is another's.
        """
        path = f"{_lease(job, replica)}/renew"
        return await self._ask("POST", path, RenewAnswer, body, patience_seconds=patience_seconds)

    async def commit_round(self, job: str, replica: int, body: CommitBody) -> None:
        """Make a round's checkpoint count.

        Raises:
            LeaseLostError: The lease is another's; the round does not count.
        """
        await self._tell("POST", f"{_lease(job, replica)}/rounds", body)

    async def release_lease(
        self, job: str, replica: int, body: ReleaseBody, *, patience_seconds: float | None = None
    ) -> None:
        """Give a lease back, with how the work on it ended.

        Raises:
            LeaseLostError: It is another's already.
        """
        path = f"{_lease(job, replica)}/release"
        await self._tell("POST", path, body, patience_seconds=patience_seconds)

    async def take_generation(self, generation: str, epoch: int) -> GenerationLease:
        """Ask whether this worker is to host a session under this epoch.

        Raises:
            LeaseLostError: It is not.
        """
        return await self._ask("GET", f"/worker/generations/{generation}?epoch={epoch}", GenerationLease)

    async def renew_generation(
        self, generation: str, body: GenerationRenewBody, *, patience_seconds: float
    ) -> GenerationRenewAnswer:
        """Keep a lease on a session.

        Raises:
            LeaseLostError: The session has ended, or is another's.
        """
        path = f"/worker/generations/{generation}/renew"
        return await self._ask("POST", path, GenerationRenewAnswer, body, patience_seconds=patience_seconds)

    async def release_generation(self, generation: str, body: GenerationReleaseBody) -> None:
        """Give a lease on a session back.

        Raises:
            LeaseLostError: The session has ended, or is another's.
        """
        await self._tell("POST", f"/worker/generations/{generation}/release", body)

    # Both

    async def ticket(self, body: TicketBody, *, patience_seconds: float | None = None) -> TicketAnswer:
        """Get leave to open one connection at the gateway.

        Raises:
            LeaseLostError, NoLeaseError, JobOverError: There is nothing to connect for under this epoch.
        """
        return await self._ask("POST", "/tickets", TicketAnswer, body, patience_seconds=patience_seconds)

    async def post_metrics(
        self,
        job: str,
        points: Sequence[MetricPoint],
        *,
        replica: int | None = None,
        patience_seconds: float | None = None,
    ) -> None:
        """Report numbers, in as many requests as their count needs; sending one again replaces it."""
        for start in range(0, len(points), MAX_METRICS):
            some = tuple(points[start : start + MAX_METRICS])
            body = MetricsBody(job=job, replica=replica, metrics=some)
            await self._tell("POST", "/metrics", body, patience_seconds=patience_seconds)

    async def post_logs(
        self, job: str, lines: Sequence[LogLine], *, patience_seconds: float | None = None
    ) -> None:
        """Tell what happened here; sending a line again changes nothing."""
        for start in range(0, len(lines), MAX_LOG_LINES):
            body = LogsBody(job=job, lines=tuple(lines[start : start + MAX_LOG_LINES]))
            await self._tell("POST", "/logs", body, patience_seconds=patience_seconds)

    async def manifest(self, digest: str) -> bytes:
        """Return the manifest of a registered model, as it is; check its digest."""
        return await self.with_token(
            lambda token: self.requests.send("GET", f"/models/manifests/{digest}", token=token)
        )

    async def with_token(self, request: Callable[[str], Awaitable[T]]) -> T:
        """Make a request with the session's token, and once more after a new log-in where it has ended."""
        token = await self.session.token()
        try:
            return await request(token)
        except RefusedError as error:
            if error.status != _NOT_SIGNED_IN:
                raise
        return await request(await self.session.renew(token))

    async def _ask(
        self,
        method: str,
        path: str,
        answer: type[Model],
        body: BaseModel | None = None,
        *,
        patience_seconds: float | None = None,
    ) -> Model:
        return await self.with_token(
            lambda token: self.requests.ask(
                method, path, answer, body=body, token=token, patience_seconds=patience_seconds
            )
        )

    async def _tell(
        self, method: str, path: str, body: BaseModel | None, *, patience_seconds: float | None = None
    ) -> None:
        await self.with_token(
            lambda token: self.requests.send(
                method, path, body=body, token=token, patience_seconds=patience_seconds
            )
        )


def _lease(job: str, replica: int) -> str:
    return f"/worker/leases/{job}/{replica}"
