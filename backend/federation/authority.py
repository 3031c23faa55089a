"""The authority that signs certificates: a root beside this server, or a person with one elsewhere."""

from datetime import datetime, timedelta

from backend.settings import Settings
from splitlearn.identity import (
    Certificate,
    CertificateKind,
    FederationRoot,
    Fingerprint,
    PublicKey,
    RevocationList,
)

EMBEDDED_MEANS = (
    "The federation root lies on this machine: whoever can read that file, or runs this server, can admit "
    "any silo or worker. To keep that power elsewhere, run 'trunkline root init' on another machine and set "
    "TRUNKLINE_ROOT_PUBLIC_KEY here before the first start. Back the file up: it cannot be replaced."
)


class Authority:
    """Signs at once when the root is embedded, and not at all when it is offline.

    Args:
        public_key: The root's key.
        root: The root itself, in embedded mode.
    """

    def __init__(self, public_key: PublicKey, *, root: FederationRoot | None = None) -> None:
        assert root is None or root.public_key == public_key
        self.public_key = public_key
        self._root = root

    @property
    def embedded(self) -> bool:
        """Whether the root lies beside this server."""
        return self._root is not None

    @property
    def fingerprint(self) -> Fingerprint:
        """What invitations carry."""
        return Fingerprint.of(self.public_key)

    def issue(
        self, public_key: PublicKey, *, kind: CertificateKind, name: str, now: datetime, days: int
    ) -> Certificate | None:
        """Return a certificate, or None when a person has to sign it with the offline root."""
        if self._root is None:
            return None
        return self._root.issue(
            public_key, kind=kind, name=name, not_before=now, not_after=now + timedelta(days=days)
        )

    def revoke(self, serial: int, *, now: datetime, previous: RevocationList | None) -> RevocationList | None:
        """Return the next revocation list, or None when a person has to sign it with the offline root."""
        if self._root is None:
            return None
        return self._root.revoke([serial], issued_at=now, previous=previous)


def open_authority(settings: Settings, *, may_create: bool) -> Authority:
    """Return the authority that the settings ask for.

    Args:
        settings: Where the root lies, or its public key.
        may_create: At the first start an embedded root is made; later a missing file is a loss.

    Raises:
        StorageError: The file is missing or cannot be written.
        IdentityError: The file is exposed or damaged.
    """
    if settings.root_public_key is not None:
        return Authority(PublicKey(bytes.fromhex(settings.root_public_key)))
    path = settings.resolved_root_file
    if may_create and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        FederationRoot.generate().save(path)
    root = FederationRoot.load(path)
    return Authority(root.public_key, root=root)
