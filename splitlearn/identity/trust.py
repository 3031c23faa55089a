"""Trust: one pinned federation root and the newest revocation list seen."""

from datetime import datetime

from splitlearn.identity.certificate import Certificate, CertificateKind
from splitlearn.identity.errors import (
    ExpiredCertificateError,
    NotYetValidError,
    OldRevocationListError,
    RevokedCertificateError,
    SignatureError,
    UntrustedCertificateError,
    UntrustedRevocationListError,
    WrongKindError,
    WrongNameError,
)
from splitlearn.identity.fields import unix_seconds
from splitlearn.identity.fingerprint import Fingerprint
from splitlearn.identity.keys import Context, PublicKey
from splitlearn.identity.revocation import RevocationList

DEFAULT_TOLERANCE_SECONDS = 48 * 3600
"""How wrong a party's clock may be: sites with a wrong date or time zone should still train."""


class TrustStore:
    """Decides whose certificates are believed.

    Args:
        root_public_key: The pinned root.
        revocations: The newest list that this party has stored, if any; its signature is checked.

    Raises:
        UntrustedRevocationListError: The list is not the root's.
    """

    def __init__(self, root_public_key: PublicKey, *, revocations: RevocationList | None = None) -> None:
        self._root_public_key = root_public_key
        self._revocations: RevocationList | None = None
        self._revoked: frozenset[int] = frozenset()
        if revocations is not None:
            self.update(revocations)

    @classmethod
    def pinned(cls, fingerprint: str, root_public_key: PublicKey) -> "TrustStore":
        """Trust a root whose fingerprint a person was told, and whose key came over the network.

        Raises:
            FingerprintError: The text was mistyped, or the key is another root's.
        """
        Fingerprint.parse(fingerprint).check(root_public_key)
        return cls(root_public_key)

    @property
    def root_public_key(self) -> PublicKey:
        """The pinned root."""
        return self._root_public_key

    @property
    def revocations(self) -> RevocationList | None:
        """The newest list seen. The caller stores its bytes, so that a restart forgets nothing."""
        return self._revocations

    def update(self, revocations: RevocationList) -> None:
        """Take over a revocation list; giving the newest one again changes nothing.

        Raises:
            UntrustedRevocationListError: It is not the root's.
            OldRevocationListError: A newer list, or another one of the same number, was seen.
        """
        try:
            self._root_public_key.verify(
                Context.REVOCATION_LIST, revocations.signed_part(), revocations.signature
            )
        except SignatureError as error:
            raise UntrustedRevocationListError(
                f"revocation list {revocations.number} is not signed by root {self._root}"
            ) from error
        seen = self._revocations
        if seen is not None and not _follows(seen, revocations):
            raise OldRevocationListError(
                f"revocation list {revocations.number} is refused: list {seen.number} was seen already"
            )
        self._revocations = revocations
        self._revoked = frozenset(revocations.serials)

    def verify(
        self,
        certificate: Certificate,
        *,
        kind: CertificateKind,
        name: str,
        now: datetime,
        tolerance_seconds: int = DEFAULT_TOLERANCE_SECONDS,
    ) -> None:
        """Refuse a certificate unless it names this very party, now.

        Args:
            certificate: As received.
            kind: What the holder must be.
            name: Who the holder must be.
            now: The current moment, with a time zone.
            tolerance_seconds: How far beyond either end of the validity is still accepted.

        Raises:
            UntrustedCertificateError: Another root signed it.
            WrongKindError: It is for another kind of party.
            WrongNameError: It is for another party.
            NotYetValidError: Its validity has not begun.
            ExpiredCertificateError: Its validity has ended.
            RevokedCertificateError: The root has taken it back.
        """
        self._check_signature(certificate)
        _check_holder(certificate, kind=kind, name=name)
        _check_validity(certificate, now=now, tolerance_seconds=tolerance_seconds)
        if certificate.serial in self._revoked:
            raise RevokedCertificateError(
                f"the certificate {certificate.serial} of {certificate.kind.value} {certificate.name!r} "
                "is revoked; ask the federation for a new one"
            )

    def _check_signature(self, certificate: Certificate) -> None:
        try:
            self._root_public_key.verify(
                Context.CERTIFICATE, certificate.signed_part(), certificate.signature
            )
        except SignatureError as error:
            raise UntrustedCertificateError(
                f"the certificate of {certificate.kind.value} {certificate.name!r} is not signed by the "
                f"pinned root {self._root}"
            ) from error

    @property
    def _root(self) -> Fingerprint:
        return Fingerprint.of(self._root_public_key)


def _follows(seen: RevocationList, offered: RevocationList) -> bool:
    return offered.number > seen.number or offered == seen


def _check_holder(certificate: Certificate, *, kind: CertificateKind, name: str) -> None:
    if certificate.kind is not kind:
        raise WrongKindError(
            f"the certificate of {certificate.name!r} is for a {certificate.kind.value}; "
            f"a {kind.value} is expected"
        )
    if certificate.name != name:
        raise WrongNameError(
            f"the certificate is for {kind.value} {certificate.name!r}; {name!r} is expected"
        )


def _check_validity(certificate: Certificate, *, now: datetime, tolerance_seconds: int) -> None:
    holder = f"the certificate of {certificate.kind.value} {certificate.name!r}"
    here = f"it is {now.isoformat()} here, and {tolerance_seconds} s are tolerated"
    if unix_seconds(now) + tolerance_seconds < unix_seconds(certificate.not_before):
        raise NotYetValidError(
            f"{holder} is valid from {certificate.not_before.isoformat()}; {here}: check this machine's clock"
        )
    if unix_seconds(now) - tolerance_seconds > unix_seconds(certificate.not_after):
        raise ExpiredCertificateError(
            f"{holder} was valid until {certificate.not_after.isoformat()}; {here}: ask for a new one"
        )
