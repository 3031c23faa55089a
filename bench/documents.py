"""What the benchmark and its child processes tell each other: one line of JSON each way.

Keys are made for one run and thrown away with it; they travel by the child's standard input.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from bench.cases import synthetic_data
from splitlearn.channel import Terms
from splitlearn.identity import Certificate, Identity, PublicKey, SigningKey, TrustStore
from splitlearn.spec import JobSpec
from splitlearn.tasks import SiloData


class _Document(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", ser_json_bytes="hex", val_json_bytes="hex", allow_inf_nan=False
    )


class Task(_Document):
    """What any of the three processes trains.

    Attributes:
        spec: The job.
        model_folder: The model.
        vocab_size: Its tokens.
        threads: Threads of torch.
        warmup: Steps before the measurement.
        steps: Steps that are measured; the job has one more, whose start ends the last of them.
        core: The only core that the process may use; None for all that its starter may.
    """

    spec: JobSpec
    model_folder: Path
    vocab_size: int
    threads: int
    warmup: int
    steps: int
    core: int | None = None

    def data(self) -> SiloData:
        """Make the rows."""
        return synthetic_data(self.spec, model_folder=self.model_folder, vocab_size=self.vocab_size)


class Credentials(_Document):
    """Who a party is, and whom it believes.

    Attributes:
        certificate: Its certificate's bytes.
        private_key: Its 32 secret bytes.
        root_key: Public key of the federation's root.
        worker_name: Name in the worker's certificate.
    """

    certificate: bytes
    private_key: bytes = Field(repr=False)
    root_key: bytes
    worker_name: str

    @property
    def identity(self) -> Identity:
        """Certificate and key."""
        return Identity(
            Certificate.from_bytes(self.certificate), SigningKey.from_private_bytes(self.private_key)
        )

    @property
    def trust(self) -> TrustStore:
        """The federation's root, pinned."""
        return TrustStore(PublicKey(self.root_key))

    def terms(self, spec: JobSpec) -> Terms:
        """What silo and worker agree on."""
        return Terms(
            job_id=spec.name,
            replica=0,
            epoch=1,
            spec_digest=spec.digest(),
            silo_name=spec.silos[0].name,
            worker_name=self.worker_name,
        )


class WorkerRequest(_Document):
    """To the worker's process."""

    task: Task
    credentials: Credentials


class WorkerListens(_Document):
    """From the worker's process, once it can be reached; handed on to the silo's."""

    url: str


class WorkerAnswer(_Document):
    """From the worker's process at its end: CPU seconds, user and system, of one step."""

    cpu_seconds: float


class SiloRequest(_Document):
    """To the silo's process; where the worker listens follows when it is known."""

    task: Task
    credentials: Credentials


class Measured(_Document):
    """From the silo's process, the platform's driver, or the reference's process.

    Attributes:
        step_seconds: Of each measured step: from its start to that of the next, or as the silo reports it.
        cpu_seconds: User and system time of the processes, per measured step; None where the run was too
            short to tell.
        bytes_per_step: Between silo and trunk, both directions; 0 for the reference.
        losses: Mean loss of every step in nats, warm-up and the one after the last included.
        between_seconds: Per step, what the worker's turn took beyond the steps as the silo reports them.
    """

    step_seconds: tuple[float, ...]
    cpu_seconds: float | None
    bytes_per_step: float
    losses: tuple[float, ...]
    between_seconds: float = 0.0


class ClientPeaks(_Document):
    """From the client of federated averaging: the largest resident memory of its process, so far.

    Attributes:
        imports_bytes: When everything was imported.
        loaded_bytes: When the model was loaded.
        peak_bytes: When the last step was done.
        update_bytes: Of the trained tensors.
    """

    imports_bytes: int
    loaded_bytes: int
    peak_bytes: int
    update_bytes: int
