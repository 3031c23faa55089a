"""What both sides must agree on before they talk, and what each tells the other on meeting."""

from dataclasses import dataclass

from splitlearn.channel.errors import (
    StaleEpochError,
    SupersededError,
    WrongJobError,
    WrongPeerError,
    WrongReplicaError,
    WrongSpecError,
)
from splitlearn.errors import LocalProtocolError
from splitlearn.identity import FieldReader, encode_name, is_name

SPEC_DIGEST_BYTES = 32
MAX_REPLICA = 2**16 - 1
MAX_EPOCH = 2**32 - 1
MAX_MESSAGE_SEQ = 2**64 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Who talks with whom, about which job. Part of the transcript: a difference is refused.

    Attributes:
        job_id: The job's name, 1 to 64 of a-z 0-9 . _ -.
        replica: Which of the job's trunks, from 0.
        epoch: The lease under which the trunk runs; grows with every new lease.
        spec_digest: ``JobSpec.digest()``, 32 bytes.
        silo_name: The silo, as in its certificate.
        worker_name: The worker that hosts the trunk, as in its certificate.

    Raises:
        LocalProtocolError: A field is out of range; terms come from our own program.
    """

    job_id: str
    replica: int
    epoch: int
    spec_digest: bytes
    silo_name: str
    worker_name: str

    def __post_init__(self) -> None:
        for name in (self.job_id, self.silo_name, self.worker_name):
            if not is_name(name):
                raise LocalProtocolError(f"{name!r} in the terms is not 1 to 64 of a-z 0-9 . _ -")
        if not 0 <= self.replica <= MAX_REPLICA or not 0 <= self.epoch <= MAX_EPOCH:
            raise LocalProtocolError(f"replica {self.replica} or epoch {self.epoch} is out of range")
        if len(self.spec_digest) != SPEC_DIGEST_BYTES:
            raise LocalProtocolError(f"a spec digest has {SPEC_DIGEST_BYTES} bytes")

    def to_bytes(self) -> bytes:
        """Return the one encoding: job, replica u16, epoch u32, digest 32, silo, worker."""
        return b"".join(
            (
                encode_name(self.job_id),
                self.replica.to_bytes(2, "big"),
                self.epoch.to_bytes(4, "big"),
                self.spec_digest,
                encode_name(self.silo_name),
                encode_name(self.worker_name),
            )
        )

    @classmethod
    def read(cls, reader: FieldReader) -> "Terms":
        """Read terms off a hello."""
        return cls(
            job_id=reader.name(),
            replica=reader.unsigned(2),
            epoch=reader.unsigned(4),
            spec_digest=reader.take(SPEC_DIGEST_BYTES),
            silo_name=reader.name(),
            worker_name=reader.name(),
        )

    def refuse_others(self, theirs: "Terms") -> None:
        """Compare with the peer's terms.

        Raises:
            ChannelError: They differ; the subclass says in what.
        """
        if theirs.job_id != self.job_id:
            raise WrongJobError(f"the peer talks about job {theirs.job_id!r}, we about {self.job_id!r}")
        refuse_other_replica(ours=self.replica, theirs=theirs.replica)
        refuse_other_epoch(ours=self.epoch, theirs=theirs.epoch)
        if theirs.spec_digest != self.spec_digest:
            raise WrongSpecError(
                f"the peer's specification has digest {theirs.spec_digest.hex()[:16]}..., "
                f"ours {self.spec_digest.hex()[:16]}...; fetch the job's signed specification again"
            )
        if (theirs.silo_name, theirs.worker_name) != (self.silo_name, self.worker_name):
            raise WrongPeerError(
                f"the peer is silo {theirs.silo_name!r} looking for worker {theirs.worker_name!r}; "
                f"this is worker {self.worker_name!r} waiting for silo {self.silo_name!r}"
            )


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """Where a conversation goes on after a lost connection.

    Attributes:
        last_opened: Number (``message_seq``) of the last message of the peer that was opened whole;
            0 when there was none.

    Raises:
        LocalProtocolError: Not in 0..2^64 - 1.
    """

    last_opened: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.last_opened <= MAX_MESSAGE_SEQ:
            raise LocalProtocolError(f"the resume point {self.last_opened} is not in 0..{MAX_MESSAGE_SEQ}")

    def to_bytes(self) -> bytes:
        """Return u64, big-endian."""
        return self.last_opened.to_bytes(8, "big")


def refuse_other_replica(*, ours: int, theirs: int) -> None:
    """Compare replica numbers.

    Raises:
        WrongReplicaError: They differ.
    """
    if theirs != ours:
        raise WrongReplicaError(f"the peer talks about replica {theirs}, we about {ours}")


def refuse_other_epoch(*, ours: int, theirs: int) -> None:
    """Compare epochs.

    Raises:
        StaleEpochError: The peer's is lower.
        SupersededError: The peer's is higher.
    """
    if theirs < ours:
        raise StaleEpochError(f"the peer runs under epoch {theirs}, the current one is {ours}: it must end")
    if theirs > ours:
        raise SupersededError(f"the peer runs under epoch {theirs}, we still under {ours}: we must end")
