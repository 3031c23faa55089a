"""How a silo or worker comes to the federation: its invitation, and what it signs to enrol and log in.

The layouts are normative in ``docs/control-plane.md``. A statement lists its fields in one order, each
after its u16 length, so that no two lists of fields make the same bytes.
"""

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from splitlearn.identity.certificate import CertificateKind
from splitlearn.identity.errors import MalformedInvitationError
from splitlearn.identity.fields import FieldReader, encode_name, is_name
from splitlearn.identity.fingerprint import FINGERPRINT_BYTES, Fingerprint
from splitlearn.identity.keys import Context, PublicKey

SECRET_BYTES: Final = 32
MAX_URL_BYTES: Final = 512
LOGIN_CONTEXTS: Final = {
    CertificateKind.SILO: Context.AGENT_LOGIN,
    CertificateKind.WORKER: Context.WORKER_LOGIN,
}
"""Who may log in at the control plane, and the context of the signature."""

_PREFIX = "trunkline-invitation-1."
_IN_A_LIST = re.compile(rf"""^\s*"?invitation"?:\s*"?({re.escape(_PREFIX)}[\w-]+)""", re.ASCII | re.MULTILINE)
"""Among other fields, each in a line of its own: as text or as JSON."""

_CHECK_BYTES = 4
_CHECK_CONTEXT = b"trunkline/invitation-check/v1\0"
_KIND_CODES = {CertificateKind.SILO: 1, CertificateKind.WORKER: 2}
_KINDS = {code: kind for kind, code in _KIND_CODES.items()}
_MAX_TEXT = 2048


@dataclass(frozen=True, slots=True)
class Invitation:
    """Leave for one silo or worker to enrol, as it is handed to a person.

    Attributes:
        kind: Silo or worker.
        name: Who is invited.
        url: Address of the control plane, without a slash at its end; also its audience.
        fingerprint: Of the federation root, to be pinned before anything is believed.
        secret: 32 random bytes that the control plane knows only the digest of.

    Raises:
        MalformedInvitationError: A field is out of range.
    """

    kind: CertificateKind
    name: str
    url: str
    fingerprint: Fingerprint
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if self.kind not in _KIND_CODES:
            raise MalformedInvitationError(f"a {self.kind.value} is not invited; only silos and workers are")
        if not is_name(self.name):
            raise MalformedInvitationError(f"the name {self.name!r} is not 1 to 64 of a-z 0-9 . _ -")
        if len(self.secret) != SECRET_BYTES:
            raise MalformedInvitationError(f"the secret has {len(self.secret)} bytes, not {SECRET_BYTES}")
        _check_url(self.url)

    def to_text(self) -> str:
        """Return the one text of this invitation. Whoever has it may enrol under its name: send it safely."""
        url = self.url.encode("ascii")
        body = b"".join(
            (
                bytes([_KIND_CODES[self.kind]]),
                encode_name(self.name),
                self.fingerprint.digest,
                self.secret,
                len(url).to_bytes(2, "big"),
                url,
            )
        )
        return _PREFIX + base64.urlsafe_b64encode(body + _check(body)).decode("ascii").rstrip("=")

    @classmethod
    def parse(cls, text: str) -> "Invitation":
        """Read an invitation as pasted by a person; white space around and inside it does not matter.

        Also all of what ``trunkline silos invite`` printed: the invitation is taken out of its line.

        Raises:
            MalformedInvitationError: It is none, or a character was changed or lost.
        """
        reader = FieldReader(
            _checked_body(_taken_out(text)), refuse=MalformedInvitationError, what="invitation"
        )
        code = reader.unsigned(1)
        if code not in _KINDS:
            raise MalformedInvitationError(f"the invitation is for kind {code}; known are {sorted(_KINDS)}")
        invitation = cls(
            kind=_KINDS[code],
            name=reader.name(),
            fingerprint=Fingerprint(reader.take(FINGERPRINT_BYTES)),
            secret=reader.take(SECRET_BYTES),
            url=reader.take(reader.unsigned(2)).decode("latin-1"),
        )
        reader.finish()
        return invitation


def _taken_out(text: str) -> str:
    found = _IN_A_LIST.search(text)
    return text if found is None else found[1]


def enrolment_statement(
    *,
    audience: str,
    kind: CertificateKind,
    name: str,
    fingerprint: Fingerprint,
    secret: bytes,
    public_key: PublicKey,
) -> bytes:
    """Return what a new key signs, in ``Context.ENROLMENT``, to show that its holder was invited.

    Args:
        audience: URL in the invitation: a proof for one server is none for another.
        kind: Silo or worker.
        name: Who is invited.
        fingerprint: The root that the new party has pinned.
        secret: The invitation's secret; only its digest is in the statement.
        public_key: The new key.
    """
    digest = hashlib.sha256(secret).digest()
    return _fields(
        audience.encode(), kind.value.encode(), name.encode(), fingerprint.digest, digest, public_key.raw
    )


def login_statement(
    *, audience: str, kind: CertificateKind, name: str, nonce: str, boot_id: str, previous_boot_id: str = ""
) -> bytes:
    """Return what a party signs, in its context of ``LOGIN_CONTEXTS``, to log in.

    Args:
        audience: URL of the control plane, as in the invitation.
        kind: Silo or worker.
        name: Who logs in.
        nonce: As the server gave it, not older than a minute or so; no clock of the party is asked.
        boot_id: Random name of this process, made at its start.
        previous_boot_id: The last process's, from the state folder: shows that this process owns that
            folder and may take over at once. Empty at the first start.
    """
    texts = (audience, kind.value, name, nonce, boot_id, previous_boot_id)
    return _fields(*(text.encode() for text in texts))


def rotation_statement(
    *,
    audience: str,
    kind: CertificateKind,
    name: str,
    nonce: str,
    old_key: PublicKey,
    new_key: PublicKey,
) -> bytes:
    """Return what both keys sign, in ``Context.KEY_ROTATION``, so that the new one may follow the old one.

    Args:
        audience: URL of the control plane, as in the invitation.
        kind: Silo or worker.
        name: Whose keys they are.
        nonce: As for a log-in.
        old_key: The certified key.
        new_key: The one that follows.
    """
    return _fields(
        audience.encode(), kind.value.encode(), name.encode(), nonce.encode(), old_key.raw, new_key.raw
    )


def rotated_statement(
    *, audience: str, kind: CertificateKind, name: str, nonce: str, key: PublicKey
) -> bytes:
    """Return what a new key signs, in ``Context.KEY_ROTATED``, once its certificate is on the party's disk.

    From then on the old key may be refused. Arguments as of :func:`rotation_statement`.
    """
    return _fields(audience.encode(), kind.value.encode(), name.encode(), nonce.encode(), key.raw)


def _fields(*values: bytes) -> bytes:
    return b"".join(len(value).to_bytes(2, "big") + value for value in values)


def _check(body: bytes) -> bytes:
    return hashlib.sha256(_CHECK_CONTEXT + body).digest()[:_CHECK_BYTES]


def _checked_body(text: str) -> bytes:
    compact = "".join(text[: 2 * _MAX_TEXT].split())
    if not compact.startswith(_PREFIX) or len(compact) > _MAX_TEXT:
        raise MalformedInvitationError(f"this is no invitation; one begins with {_PREFIX!r}")
    encoded = compact.removeprefix(_PREFIX)
    try:
        raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedInvitationError(
            "the invitation was changed on its way; copy all of it again"
        ) from error
    body, check = raw[:-_CHECK_BYTES], raw[-_CHECK_BYTES:]
    if not hmac.compare_digest(check, _check(body)):
        raise MalformedInvitationError("the invitation was changed or cut short; copy all of it again")
    return body


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        whole = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        whole = False
    printable = url.isascii() and url.isprintable() and " " not in url
    if not whole or not printable or url.endswith("/") or len(url) > MAX_URL_BYTES:
        raise MalformedInvitationError(
            f"the address {url[:80]!r} is not http(s)://host[:port][/path] without a slash at its end, "
            f"of at most {MAX_URL_BYTES} characters"
        )
