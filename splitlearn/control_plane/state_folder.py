"""What a party keeps on its disk between two processes: who it is, whom it trusts, and what it has seen.

::

    party.key          its private key, 0600; never leaves
    next.key           the one that follows, while it is rotated: the certificate says which of both counts
    membership.json    kind, name, control plane, root, and the certificate once there is one
    revocations        the newest revocation list, as the root signed it
    boot.json          names of the last process that logged in, and of the one that tries to
    epochs/<job>.<n>   highest epoch seen of a job's replica n
    lock               held by the one process that speaks for the party
    rotation.lock      held by the one that rotates the key
"""

import base64
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from splitlearn.control_plane.admission import PartyWord
from splitlearn.control_plane.durable_file import flush_folder, read_if_there, write_durably
from splitlearn.control_plane.errors import FolderInUseError
from splitlearn.control_plane.schemas import Base64, ProcessId, Sha256
from splitlearn.errors import StorageError
from splitlearn.identity import (
    Certificate,
    CertificateKind,
    Identity,
    Invitation,
    PublicKey,
    RevocationList,
    SigningKey,
    TrustStore,
)
from splitlearn.identity.key_file import read_key_file, write_key_file
from splitlearn.identity.revocation import MAX_REVOCATION_LIST_BYTES

_KEY, _MEMBERSHIP, _REVOCATIONS, _BOOT = "party.key", "membership.json", "revocations", "boot.json"
_NEXT_KEY, _ROTATION_LOCK = "next.key", "rotation.lock"
_EPOCHS, _LOCK = "epochs", "lock"
_MAX_SMALL_BYTES = 16 << 10
Model = TypeVar("Model", bound=BaseModel)


class Membership(BaseModel):
    """To which federation this party belongs, and as who.

    Attributes:
        url: The control plane's address, as in the invitation; also what log-ins are signed for.
        invitation: SHA-256 of the invitation's secret.
        root_public_key: Checked against the invitation's fingerprint before it was written.
        certificate: None until the root has signed it.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: PartyWord
    name: str
    url: str
    invitation: Sha256
    root_public_key: Base64
    certificate: Base64 | None = None

    @property
    def certificate_kind(self) -> CertificateKind:
        """The kind, as identity has it."""
        return CertificateKind(self.kind)

    def is_of(self, invitation: Invitation) -> bool:
        """Whether the invitation is for this very party of this federation."""
        mine = (self.certificate_kind, self.name, self.url)
        return mine == (invitation.kind, invitation.name, invitation.url)


class Boots(BaseModel):
    """Names of processes that spoke for the party.

    Attributes:
        last: Of the process whose log-in was answered last.
        trying: Of a process that asked to log in, and may have been killed before it had the answer.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    last: ProcessId | None = None
    trying: ProcessId | None = None


class StateFolder:
    """A party's state folder. Reading needs no lock; who speaks for the party holds it.

    Args:
        path: The folder; made when something is written first.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder alone; ends with the process at the latest.

        Raises:
            FolderInUseError: Another process holds it.
            StorageError: The folder cannot be made or written.
        """
        busy = f"another process uses the state folder {self.path}; stop it, or choose another folder"
        with self._holding(_LOCK, busy):
            yield

    @contextmanager
    def rotating(self) -> Iterator[None]:
        """Be the one that rotates the key; the party's own process may hold the folder meanwhile.

        Raises:
            FolderInUseError: Another process rotates it.
            StorageError: The folder cannot be made or written.
        """
        with self._holding(
            _ROTATION_LOCK, f"another process rotates the key in {self.path}; wait for its end"
        ):
            yield

    @contextmanager
    def _holding(self, name: str, busy: str) -> Iterator[None]:
        descriptor = self._open_lock(name)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise FolderInUseError(busy) from error
            yield
        finally:
            os.close(descriptor)

    def membership(self) -> Membership | None:
        """Return what enrolment left; None before it.

        Raises:
            StorageError: The file is damaged.
        """
        return self._read(_MEMBERSHIP, Membership)

    def enrolled(self) -> Membership:
        """Return the membership of a party that has its certificate.

        Raises:
            StorageError: The party is not enrolled yet.
        """
        membership = self.membership()
        if membership is None or membership.certificate is None:
            raise StorageError(f"{self.path} holds no certificate; enrol first, with an invitation")
        return membership

    def write_membership(self, membership: Membership) -> None:
        """Keep who this party is.

        Raises:
            StorageError: The disk refused.
        """
        write_durably(self.path / _MEMBERSHIP, membership.model_dump_json(indent=2).encode() + b"\n")

    def signing_key(self) -> SigningKey:
        """Return the party's key; made and written first where there is none.

        While the key is rotated there are two: the one that the certificate is for counts.

        Raises:
            StorageError: The file cannot be written or read.
            ExposedKeyFileError: Others may read it.
        """
        path = self.path / _KEY
        if not path.exists():
            self._make()
            write_key_file(path, SigningKey.generate().private_bytes())
        membership = self.membership()
        certificate = _certificate(membership) if membership else None
        return _read_key(path) if certificate is None else self._key_of(certificate)

    def identity(self) -> Identity:
        """Return certificate and key.

        Raises:
            StorageError: The party is not enrolled yet.
            KeyMismatchError: The key was exchanged.
        """
        certificate = _certificate(self.enrolled())
        assert certificate is not None, "an enrolled party has one"
        return Identity(certificate, self._key_of(certificate))

    def next_signing_key(self) -> SigningKey:
        """Return the key that follows; made and written first where there is none.

        Raises:
            StorageError, ExposedKeyFileError: As of :meth:`signing_key`.
        """
        path = self.path / _NEXT_KEY
        if not path.exists():
            write_key_file(path, SigningKey.generate().private_bytes())
        return _read_key(path)

    def has_switched_key(self) -> bool:
        """Tell whether the certificate is the next key's already, and its old one only has to go."""
        path, certificate = self.path / _NEXT_KEY, _certificate(self.enrolled())
        return (
            certificate is not None and path.exists() and _read_key(path).public_key == certificate.public_key
        )

    def switch_key(self, certificate: Certificate) -> None:
        """Let the next key count from now on, in one step.

        Raises:
            StorageError: The disk refused; the old key counts.
        """
        text = base64.b64encode(certificate.to_bytes()).decode("ascii")
        self.write_membership(self.enrolled().model_copy(update={"certificate": text}))

    def drop_old_key(self) -> None:
        """Put the next key in the old one's place, which nothing brings back.

        Raises:
            StorageError: The disk refused.
        """
        try:
            (self.path / _NEXT_KEY).replace(self.path / _KEY)
            flush_folder(self.path)
        except OSError as error:
            raise StorageError(f"cannot replace {self.path / _KEY}: {error.strerror or error}") from error

    def trust(self) -> TrustStore:
        """Return whose certificates are believed: the pinned root, less what it has revoked.

        Raises:
            StorageError: The party is not enrolled yet.
            UntrustedRevocationListError: The stored list was exchanged.
        """
        raw = read_if_there(self.path / _REVOCATIONS, max_bytes=MAX_REVOCATION_LIST_BYTES)
        root = PublicKey(base64.b64decode(self.enrolled().root_public_key))
        return TrustStore(root, revocations=None if raw is None else RevocationList.from_bytes(raw))

    def update_revocations(self, revocations: RevocationList) -> None:
        """Keep a newer list, if the root signed it.

        Raises:
            UntrustedRevocationListError, OldRevocationListError: It is refused.
        """
        self.trust().update(revocations)
        write_durably(self.path / _REVOCATIONS, revocations.to_bytes())

    def boots(self) -> Boots:
        """Return the names of the processes before this one."""
        return self._read(_BOOT, Boots) or Boots()

    def write_boots(self, boots: Boots) -> None:
        """Keep the names of processes, on the disk before this returns."""
        write_durably(self.path / _BOOT, boots.model_dump_json().encode() + b"\n")

    def highest_epoch(self, job: str, replica: int = 0) -> int:
        """Return the highest epoch seen of a job's replica, 0 for none.

        Raises:
            StorageError: The file is damaged.
        """
        path = self._epoch_file(job, replica)
        raw = read_if_there(path, max_bytes=_MAX_SMALL_BYTES)
        try:
            return 0 if raw is None else int(raw)
        except ValueError as error:
            raise StorageError(f"{path} is damaged; restore it from your backup, or delete it") from error

    def note_epoch(self, job: str, epoch: int, replica: int = 0) -> bool:
        """Keep an epoch that was seen. False when a higher one was: what carries this one is outdated."""
        seen = self.highest_epoch(job, replica)
        if epoch > seen:
            write_durably(self._epoch_file(job, replica), f"{epoch}\n".encode())
        return epoch >= seen

    def _key_of(self, certificate: Certificate) -> SigningKey:
        """Return the key that a certificate is for; where none is, the party's, which will be found wrong."""
        path = self.path / _KEY
        for candidate in (path, self.path / _NEXT_KEY, path):  # again: the next one may have taken its place
            if candidate.exists() and (key := _read_key(candidate)).public_key == certificate.public_key:
                return key
        return _read_key(path)

    def _epoch_file(self, job: str, replica: int) -> Path:
        return self.path / _EPOCHS / f"{job}.{replica}"

    def _read(self, name: str, model: type[Model]) -> Model | None:
        path = self.path / name
        raw = read_if_there(path, max_bytes=_MAX_SMALL_BYTES)
        try:
            return None if raw is None else model.model_validate_json(raw)
        except ValidationError as error:
            raise StorageError(f"{path} is damaged; restore it from your backup, or enrol anew") from error

    def _open_lock(self, name: str) -> int:
        self._make()
        try:
            return os.open(self.path / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(
                f"cannot lock {self.path}: {error.strerror}; correct its permissions"
            ) from error

    def _make(self) -> None:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"cannot make the state folder {self.path}: {error.strerror}; choose another"
            ) from error


def _read_key(path: Path) -> SigningKey:
    return SigningKey.from_private_bytes(read_key_file(path))


def _certificate(membership: Membership) -> Certificate | None:
    raw = membership.certificate
    return None if raw is None else Certificate.from_bytes(base64.b64decode(raw))
