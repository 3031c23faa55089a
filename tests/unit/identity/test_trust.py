from datetime import datetime, timedelta, timezone

import pytest

from splitlearn.errors import LocalProtocolError
from splitlearn.identity import (
    Certificate,
    CertificateKind,
    ExpiredCertificateError,
    FederationRoot,
    FingerprintError,
    Identity,
    KeyMismatchError,
    NotYetValidError,
    OldRevocationListError,
    RevokedCertificateError,
    SignatureError,
    SpecSignature,
    TrustStore,
    UntrustedCertificateError,
    UntrustedRevocationListError,
    WrongKindError,
    WrongNameError,
    sign_spec,
    verify_spec,
)
from tests.unit.identity.conftest import NOW, YEAR, issue, seeded_key

TOLERANCE = timedelta(hours=48)
SECOND = timedelta(seconds=1)


def verify(trust: TrustStore, certificate: Certificate, *, now: datetime = NOW) -> None:
    trust.verify(certificate, kind=CertificateKind.SILO, name="north", now=now)


class TestVerify:
    def test_accepts_the_party_it_names(self, trust: TrustStore, certificate: Certificate) -> None:
        verify(trust, certificate)

    def test_rejects_another_root(self, trust: TrustStore, other_root: FederationRoot) -> None:
        with pytest.raises(UntrustedCertificateError):
            verify(trust, issue(other_root))

    def test_rejects_a_changed_certificate(self, trust: TrustStore, certificate: Certificate) -> None:
        renamed = Certificate.from_bytes(certificate.to_bytes().replace(b"north", b"south"))
        with pytest.raises(UntrustedCertificateError):
            trust.verify(renamed, kind=CertificateKind.SILO, name="south", now=NOW)

    def test_rejects_another_kind(self, trust: TrustStore, root: FederationRoot) -> None:
        with pytest.raises(WrongKindError):
            verify(trust, issue(root, kind=CertificateKind.WORKER))

    def test_rejects_another_name(self, trust: TrustStore, root: FederationRoot) -> None:
        with pytest.raises(WrongNameError):
            verify(trust, issue(root, name="south"))

    def test_tolerates_clocks_wrong_by_48_hours(self, trust: TrustStore, certificate: Certificate) -> None:
        verify(trust, certificate, now=NOW - TOLERANCE)
        verify(trust, certificate, now=NOW + YEAR + TOLERANCE)

    def test_rejects_before_the_tolerance(self, trust: TrustStore, certificate: Certificate) -> None:
        with pytest.raises(NotYetValidError, match="clock"):
            verify(trust, certificate, now=NOW - TOLERANCE - SECOND)

    def test_rejects_after_the_tolerance(self, trust: TrustStore, certificate: Certificate) -> None:
        with pytest.raises(ExpiredCertificateError):
            verify(trust, certificate, now=NOW + YEAR + TOLERANCE + SECOND)

    def test_compares_moments_across_time_zones(self, trust: TrustStore, certificate: Certificate) -> None:
        tokyo = timezone(timedelta(hours=9))
        verify(trust, certificate, now=(NOW - TOLERANCE).astimezone(tokyo))
        with pytest.raises(NotYetValidError):
            verify(trust, certificate, now=(NOW - TOLERANCE - SECOND).astimezone(tokyo))

    def test_a_moment_without_a_zone_is_our_fault(self, trust: TrustStore, certificate: Certificate) -> None:
        with pytest.raises(LocalProtocolError):
            verify(trust, certificate, now=NOW.replace(tzinfo=None))


class TestRevocations:
    def test_rejects_a_revoked_certificate(
        self, trust: TrustStore, root: FederationRoot, certificate: Certificate
    ) -> None:
        trust.update(root.revoke([certificate.serial + 1], issued_at=NOW))
        verify(trust, certificate)
        trust.update(root.revoke([certificate.serial], issued_at=NOW, previous=trust.revocations))
        with pytest.raises(RevokedCertificateError):
            verify(trust, certificate)

    def test_rejects_an_older_list_and_keeps_the_newer(
        self, trust: TrustStore, root: FederationRoot, certificate: Certificate
    ) -> None:
        first = root.revoke([], issued_at=NOW)
        trust.update(root.revoke([certificate.serial], issued_at=NOW, previous=first))
        with pytest.raises(OldRevocationListError):
            trust.update(first)
        with pytest.raises(RevokedCertificateError):
            verify(trust, certificate)

    def test_rejects_another_list_of_the_same_number(self, trust: TrustStore, root: FederationRoot) -> None:
        trust.update(root.revoke([1], issued_at=NOW))
        with pytest.raises(OldRevocationListError):
            trust.update(root.revoke([2], issued_at=NOW))

    def test_the_same_list_again_changes_nothing(self, trust: TrustStore, root: FederationRoot) -> None:
        newest = root.revoke([1], issued_at=NOW)
        trust.update(newest)
        trust.update(newest)
        assert trust.revocations == newest

    def test_rejects_another_roots_list(self, trust: TrustStore, other_root: FederationRoot) -> None:
        with pytest.raises(UntrustedRevocationListError):
            trust.update(other_root.revoke([1], issued_at=NOW))
        assert trust.revocations is None

    def test_checks_the_list_that_it_starts_with(
        self, root: FederationRoot, other_root: FederationRoot, certificate: Certificate
    ) -> None:
        stored = TrustStore(root.public_key, revocations=root.revoke([certificate.serial], issued_at=NOW))
        with pytest.raises(RevokedCertificateError):
            verify(stored, certificate)
        with pytest.raises(UntrustedRevocationListError):
            TrustStore(root.public_key, revocations=other_root.revoke([], issued_at=NOW))


class TestPinned:
    def test_trusts_the_root_with_the_pinned_fingerprint(
        self, root: FederationRoot, certificate: Certificate
    ) -> None:
        trust = TrustStore.pinned(str(root.fingerprint), root.public_key)
        assert trust.root_public_key == root.public_key
        verify(trust, certificate)

    def test_rejects_another_root(self, root: FederationRoot, other_root: FederationRoot) -> None:
        with pytest.raises(FingerprintError, match="pinned"):
            TrustStore.pinned(str(root.fingerprint), other_root.public_key)


class TestIdentity:
    def test_rejects_a_certificate_for_another_key(self, certificate: Certificate) -> None:
        with pytest.raises(KeyMismatchError):
            Identity(certificate, seeded_key(12))


class TestSpec:
    @pytest.fixture
    def signer(self, root: FederationRoot) -> Identity:
        return Identity(issue(root, kind=CertificateKind.SPEC_SIGNER, name="lab", seed=41), seeded_key(41))

    def test_returns_who_signed(self, trust: TrustStore, signer: Identity) -> None:
        signature = SpecSignature.from_bytes(sign_spec(b"{}", signer=signer).to_bytes())
        assert verify_spec(b"{}", signature, trust=trust, now=NOW) == signer.certificate

    def test_rejects_another_specification(self, trust: TrustStore, signer: Identity) -> None:
        with pytest.raises(SignatureError):
            verify_spec(b"{ }", sign_spec(b"{}", signer=signer), trust=trust, now=NOW)

    def test_rejects_a_silo_as_signer(self, trust: TrustStore, certificate: Certificate) -> None:
        silo = Identity(certificate, seeded_key(11))
        with pytest.raises(WrongKindError):
            verify_spec(b"{}", sign_spec(b"{}", signer=silo), trust=trust, now=NOW)

    def test_rejects_a_signer_of_another_root(self, signer: Identity, other_root: FederationRoot) -> None:
        with pytest.raises(UntrustedCertificateError):
            verify_spec(
                b"{}", sign_spec(b"{}", signer=signer), trust=TrustStore(other_root.public_key), now=NOW
            )

    def test_rejects_a_revoked_signer(
        self, trust: TrustStore, root: FederationRoot, signer: Identity
    ) -> None:
        trust.update(root.revoke([signer.certificate.serial], issued_at=NOW))
        with pytest.raises(RevokedCertificateError):
            verify_spec(b"{}", sign_spec(b"{}", signer=signer), trust=trust, now=NOW)
