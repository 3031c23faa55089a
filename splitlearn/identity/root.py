"""The federation root: the one key that every party trusts."""

import json
import secrets
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Final

from splitlearn.errors import IdentityError
from splitlearn.identity.certificate import Certificate, CertificateKind
from splitlearn.identity.errors import MalformedKeyFileError
from splitlearn.identity.fields import whole_seconds
from splitlearn.identity.fingerprint import Fingerprint
from splitlearn.identity.key_file import read_key_file, write_key_file
from splitlearn.identity.keys import SIGNATURE_BYTES, Context, PublicKey, SigningKey
from splitlearn.identity.revocation import RevocationList

_FORMAT: Final = "trunkline/federation-root/v1"
_UNSIGNED: Final = bytes(SIGNATURE_BYTES)


class FederationRoot:
    """Signs certificates and revocation lists; may live offline.

    Whoever holds this key can name any key a silo or worker of the federation. Kept beside the
    control plane, the control plane's operator is trusted with that; kept offline, nobody is.

    Args:
        signing_key: The root's key.
    """

    __slots__ = ("_signing_key",)

    def __init__(self, signing_key: SigningKey) -> None:
        self._signing_key = signing_key

    @classmethod
    def generate(cls) -> "FederationRoot":
        """Return a new root from the operating system's randomness."""
        return cls(SigningKey.generate())

    @classmethod
    def load(cls, path: Path) -> "FederationRoot":
        """Read a root that :meth:`save` wrote.

        Raises:
            StorageError: The file cannot be read.
            ExposedKeyFileError: Others may read it.
            MalformedKeyFileError: It holds no federation root, or was damaged.
        """
        content = read_key_file(path)
        try:
            fields = json.loads(content)
            root = cls(SigningKey.from_private_bytes(bytes.fromhex(fields["private_key"])))
            whole = fields["format"] == _FORMAT and fields["fingerprint"] == str(root.fingerprint)
        except (ValueError, KeyError, TypeError, IdentityError, RecursionError):
            raise _malformed(path) from None  # the cause could show a part of the key
        if not whole:
            raise _malformed(path)
        return root

    def save(self, path: Path) -> None:
        """Write the root to a new file of mode 0600, whole or not at all.

        Raises:
            StorageError: The file exists, or cannot be written.
        """
        fields = {
            "format": _FORMAT,
            "fingerprint": str(self.fingerprint),
            "private_key": self._signing_key.private_bytes().hex(),
        }
        write_key_file(path, json.dumps(fields, indent=2).encode() + b"\n")

    @property
    def public_key(self) -> PublicKey:
        """The key that every party verifies with."""
        return self._signing_key.public_key

    @property
    def fingerprint(self) -> Fingerprint:
        """What an invitation shows and a silo pins."""
        return Fingerprint.of(self.public_key)

    def issue(
        self,
        public_key: PublicKey,
        *,
        kind: CertificateKind,
        name: str,
        not_before: datetime,
        not_after: datetime,
        serial: int | None = None,
    ) -> Certificate:
        """Bind a key to a name.

        Args:
            public_key: The party's key; the party shows by a signature that it holds the other half.
            kind: What the party may be.
            name: Who the party is.
            not_before: Start of validity, with a time zone; fractions of a second are cut off.
            not_after: End of validity, inclusive.
            serial: 1 to 2^64 - 1; 63 random bits when left out, so that an offline root keeps no count.

        Raises:
            MalformedCertificateError: A field is out of range.
        """
        unsigned = Certificate(
            kind=kind,
            name=name,
            public_key=public_key,
            serial=1 + secrets.randbits(63) if serial is None else serial,
            not_before=whole_seconds(not_before),
            not_after=whole_seconds(not_after),
            signature=_UNSIGNED,
        )
        signature = self._signing_key.sign(Context.CERTIFICATE, unsigned.signed_part())
        return Certificate.from_bytes(unsigned.signed_part() + signature)

    def revoke(
        self, serials: Iterable[int], *, issued_at: datetime, previous: RevocationList | None = None
    ) -> RevocationList:
        """Return the next revocation list: the previous one's serials and these.

        Args:
            serials: Certificates to take back, in any order; may be empty.
            issued_at: Now, with a time zone.
            previous: The newest list so far; without it, the list has number 1.

        Raises:
            MalformedRevocationListError: A serial is out of range, or there are too many.
        """
        known = previous.serials if previous else ()
        unsigned = RevocationList(
            number=(previous.number if previous else 0) + 1,
            serials=tuple(sorted({*known, *serials})),
            issued_at=whole_seconds(issued_at),
            signature=_UNSIGNED,
        )
        signature = self._signing_key.sign(Context.REVOCATION_LIST, unsigned.signed_part())
        return RevocationList.from_bytes(unsigned.signed_part() + signature)

    def __repr__(self) -> str:
        return f"FederationRoot({self.fingerprint})"


def _malformed(path: Path) -> MalformedKeyFileError:
    return MalformedKeyFileError(f"{path} holds no federation root, or is damaged; restore your backup of it")
