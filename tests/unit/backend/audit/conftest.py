"""Exports made without a database: what a verifier is given."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from backend.audit import chain
from backend.audit.chain import Head
from backend.audit.lines import head_line, row_line
from backend.federation.signer import SIGNER_NAME
from splitlearn.identity import Certificate, CertificateKind, FederationRoot, SigningKey

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def content(number: int) -> dict[str, Any]:
    return {
        "action": "sign_in",
        "actor_kind": "user",
        "actor_name": f"user-{number}",
        "address": "127.0.0.1",
        "at": chain.moment_text(NOW + timedelta(seconds=number)),
        "details": {"number": number, "text": 'quoted " \\ \n ü'},
        "organization": None,
        "outcome": "done",
        "salt": number.to_bytes(16, "big").hex(),
        "subject_kind": "user",
        "subject_name": f"user-{number}",
    }


@dataclass
class Writer:
    """A federation that writes exports."""

    root: FederationRoot = field(default_factory=FederationRoot.generate)
    key: SigningKey = field(default_factory=SigningKey.generate)

    def certificate(
        self, *, kind: CertificateKind = CertificateKind.SPEC_SIGNER, name: str = SIGNER_NAME
    ) -> Certificate:
        return self.root.issue(
            self.key.public_key, kind=kind, name=name, not_before=NOW, not_after=NOW + timedelta(days=365)
        )

    def head(self, number: int, digest: bytes, *, certificate: Certificate | None = None) -> Head:
        signature = chain.sign(self.key, number, digest, NOW)
        return Head(number, digest, NOW, certificate or self.certificate(), signature)

    def rows(
        self, contents: list[dict[str, Any]], *, hidden: frozenset[int] = frozenset()
    ) -> tuple[list[bytes], bytes]:
        """The lines of the rows, and the digest of the chain."""
        lines, digest = [], chain.genesis(self.root.public_key.raw)
        for number, shown in enumerate(contents, start=1):
            digest = chain.link(digest, number, chain.content_digest(shown))
            lines.append(row_line(number, digest, shown, is_hidden=number in hidden))
        return lines, digest

    def export(self, num_rows: int, *, hidden: frozenset[int] = frozenset()) -> list[bytes]:
        lines, digest = self.rows([content(number) for number in range(1, num_rows + 1)], hidden=hidden)
        return [*lines, head_line(self.head(num_rows, digest))]


@pytest.fixture(scope="session")
def writer() -> Writer:
    return Writer()
