"""A federation root, a moment, and certificates issued on demand."""

from datetime import UTC, datetime, timedelta

import pytest

from splitlearn.identity import Certificate, CertificateKind, FederationRoot, SigningKey, TrustStore

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
YEAR = timedelta(days=365)


def seeded_key(seed: int) -> SigningKey:
    return SigningKey.from_private_bytes(bytes([seed]) * 32)


@pytest.fixture
def root() -> FederationRoot:
    return FederationRoot(seeded_key(1))


@pytest.fixture
def other_root() -> FederationRoot:
    return FederationRoot(seeded_key(2))


@pytest.fixture
def trust(root: FederationRoot) -> TrustStore:
    return TrustStore(root.public_key)


@pytest.fixture
def certificate(root: FederationRoot) -> Certificate:
    return issue(root)


def issue(
    root: FederationRoot,
    *,
    kind: CertificateKind = CertificateKind.SILO,
    name: str = "north",
    seed: int = 11,
    not_before: datetime = NOW,
    not_after: datetime = NOW + YEAR,
) -> Certificate:
    key = seeded_key(seed).public_key
    return root.issue(key, kind=kind, name=name, not_before=not_before, not_after=not_after, serial=seed)
