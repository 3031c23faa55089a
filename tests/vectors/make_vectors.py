"""Make or check the fixed vectors of docs/protocol.md: ``python tests/vectors/make_vectors.py [--check]``.

Every key comes from a seed in this file. An ML-KEM-768 encapsulation cannot be seeded, so its ciphertext
was recorded once: the one in ``channel.json`` is used again, and only without that file a new one is drawn.
The tests recompute all of it by other means (tests/unit/channel/test_vectors.py).
"""

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from splitlearn.channel import (
    Entropy,
    ResumePoint,
    SealedSession,
    SeenHandshakes,
    SiloHandshake,
    Terms,
    TrunkHandshake,
)
from splitlearn.channel.handshake import exchange_hash, replied_hash
from splitlearn.channel.schedule import KeySchedule, Stage, Use, next_key, transcript_hash
from splitlearn.identity import (
    Certificate,
    CertificateKind,
    FederationRoot,
    Identity,
    SigningKey,
    TrustStore,
    sign_spec,
)
from splitlearn.wire import ENVELOPE_BYTES, FrameDecoder, Limits

sys.path.insert(0, str(Path(__file__).parents[2]))  # run as a script, it finds its neighbours there
from tests.vectors.sum_vectors import sum_vectors

FOLDER = Path(__file__).parent
NOT_BEFORE = datetime(2026, 1, 1, tzinfo=UTC)
NOT_AFTER = datetime(2027, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 6, 1, tzinfo=UTC)
ROOT_SEED = bytes(range(32))
SIGNER_SEEDS = {"silo": bytes(range(32, 64)), "worker": bytes(range(64, 96)), "signer": bytes(range(96, 128))}
SPEC_BYTES = b'{"spec_version":1}'
TERMS = Terms(
    job_id="radiology-1",
    replica=3,
    epoch=7,
    spec_digest=bytes(range(128, 160)),
    silo_name="north-hospital",
    worker_name="gpu-0",
)
ENTROPY = {
    "silo": Entropy(random=b"\x11" * 32, x25519_private=b"\x22" * 32, mlkem_seed=b"\x33" * 64),
    "trunk": Entropy(random=b"\x44" * 32, x25519_private=b"\x55" * 32, mlkem_seed=b"\x66" * 64),
}
RESUME = {"silo": ResumePoint(5), "trunk": ResumePoint(9)}
FRAMES = {
    "silo_to_trunk": {"plaintext": b"activations", "round_number": 1, "step": 2, "message_seq": 10},
    "trunk_to_silo": {"plaintext": b"hidden", "round_number": 1, "step": 2, "message_seq": 6},
}

root = FederationRoot(SigningKey.from_private_bytes(ROOT_SEED))


def identity_vectors() -> dict[str, Any]:
    """Return certificates, a revocation list and a spec signature with the seeds that they come from."""
    identities = {name: _identity(name) for name in SIGNER_SEEDS}
    return {
        "root": {
            "private": ROOT_SEED.hex(),
            "public": root.public_key.raw.hex(),
            "fingerprint": str(root.fingerprint),
        },
        "certificates": {name: _certificate_vector(one) for name, one in identities.items()},
        "revocation_list": _revocation_vector(),
        "spec": {
            "bytes": SPEC_BYTES.hex(),
            "signature": sign_spec(SPEC_BYTES, signer=identities["signer"]).to_bytes().hex(),
        },
    }


def channel_vectors(ciphertext: bytes | None) -> dict[str, Any]:
    """Return one handshake and the first sealed frame of each direction.

    Args:
        ciphertext: The recorded ML-KEM ciphertext, or None to draw a new one.
    """
    kem = MLKEM768PrivateKey.from_seed_bytes(ENTROPY["silo"].mlkem_seed)
    encapsulated = _encapsulation(kem, ciphertext)
    with mock.patch("splitlearn.channel.trunk.encapsulate", return_value=encapsulated):
        hello, reply, confirm, sessions = _handshake()
    secrets = {"x25519": _x25519_secret(), "mlkem": encapsulated[0]}
    return {
        "terms": _hex_fields(TERMS),
        "now": NOW.isoformat(),
        "resume": {side: point.last_opened for side, point in RESUME.items()},
        "entropy": {side: _hex_fields(entropy) for side, entropy in ENTROPY.items()},
        "mlkem_ciphertext": encapsulated[1].hex(),
        "secrets": {name: secret.hex() for name, secret in secrets.items()},
        "messages": {"hello": hello.hex(), "reply": reply.hex(), "confirm": confirm.hex()},
        **_schedule(hello, reply, confirm, secrets),
        "frames": {name: _frame_vector(sessions[name], fields) for name, fields in FRAMES.items()},
    }


def _identity(name: str) -> Identity:
    kinds = {
        "silo": (CertificateKind.SILO, TERMS.silo_name, 1001),
        "worker": (CertificateKind.WORKER, TERMS.worker_name, 1002),
        "signer": (CertificateKind.SPEC_SIGNER, "consortium", 1003),
    }
    kind, holder, serial = kinds[name]
    key = SigningKey.from_private_bytes(SIGNER_SEEDS[name])
    certificate = root.issue(
        key.public_key, kind=kind, name=holder, not_before=NOT_BEFORE, not_after=NOT_AFTER, serial=serial
    )
    return Identity(certificate, key)


def _certificate_vector(identity: Identity) -> dict[str, Any]:
    certificate = identity.certificate
    return {
        "private": identity.signing_key.private_bytes().hex(),
        "public": certificate.public_key.raw.hex(),
        "kind": certificate.kind.value,
        "name": certificate.name,
        "serial": certificate.serial,
        "not_before": int(certificate.not_before.timestamp()),
        "not_after": int(certificate.not_after.timestamp()),
        "bytes": certificate.to_bytes().hex(),
    }


def _revocation_vector() -> dict[str, Any]:
    first = root.revoke([2002], issued_at=NOT_BEFORE)
    second = root.revoke([2001], issued_at=NOW, previous=first)
    return {
        "number": second.number,
        "serials": list(second.serials),
        "issued_at": int(second.issued_at.timestamp()),
        "bytes": second.to_bytes().hex(),
    }


def _encapsulation(kem: MLKEM768PrivateKey, ciphertext: bytes | None) -> tuple[bytes, bytes]:
    if ciphertext is None:
        public = MLKEM768PublicKey.from_public_bytes(kem.public_key().public_bytes_raw())
        ciphertext = public.encapsulate()[1]
    return kem.decapsulate(ciphertext), ciphertext


def _handshake() -> tuple[bytes, bytes, bytes, Mapping[str, SealedSession]]:
    trust = TrustStore(root.public_key)
    silo = SiloHandshake(
        TERMS,
        identity=_identity("silo"),
        trust=trust,
        resume=RESUME["silo"],
        now=NOW,
        seen=SeenHandshakes(),
        entropy=ENTROPY["silo"],
    )
    trunk = TrunkHandshake(
        TERMS,
        identity=_identity("worker"),
        trust=trust,
        resume=RESUME["trunk"],
        now=NOW,
        seen=SeenHandshakes(),
        entropy=ENTROPY["trunk"],
    )
    decoder = FrameDecoder(Limits())
    hello = silo.hello()
    reply = trunk.receive_hello(*decoder.feed(hello))
    confirm = silo.receive_reply(*decoder.feed(reply))
    accepted = trunk.receive_confirm(*decoder.feed(confirm)).session
    return hello, reply, confirm, {"silo_to_trunk": silo.established().session, "trunk_to_silo": accepted}


def _x25519_secret() -> bytes:
    silo, trunk = (X25519PrivateKey.from_private_bytes(one.x25519_private) for one in ENTROPY.values())
    return silo.exchange(X25519PublicKey.from_public_bytes(trunk.public_key().public_bytes_raw()))


def _schedule(hello: bytes, reply: bytes, confirm: bytes, secrets: Mapping[str, bytes]) -> dict[str, Any]:
    silo, worker = (_identity(name).certificate for name in ("silo", "worker"))
    exchange = exchange_hash(hello, reply)
    replying = _bound(Stage.REPLY, exchange, worker, RESUME["trunk"])
    replied = replied_hash(replying, reply[ENVELOPE_BYTES + 1152 :])
    confirming = _bound(Stage.CONFIRM, replied, silo, RESUME["silo"])
    traffic = transcript_hash(Stage.TRAFFIC, confirming, confirm)
    keys = KeySchedule(x25519_secret=secrets["x25519"], mlkem_secret=secrets["mlkem"], exchange_hash=exchange)
    before = {Use.REPLY_SEAL: exchange, Use.REPLY_MAC: exchange, Use.CONFIRM_SEAL: replied}
    before |= {Use.CONFIRM_MAC: replied, Use.SILO_TO_TRUNK: traffic, Use.TRUNK_TO_SILO: traffic}
    hashes = {
        Stage.EXCHANGE: exchange,
        Stage.REPLY: replying,
        Stage.REPLIED: replied,
        Stage.CONFIRM: confirming,
        Stage.TRAFFIC: traffic,
    }
    return {
        "transcript": {stage.value: value.hex() for stage, value in hashes.items()},
        "keys": {use.value: keys.key(use, value).hex() for use, value in before.items()},
        "next_keys": {
            use.value: next_key(keys.key(use, traffic)).hex()
            for use in (Use.SILO_TO_TRUNK, Use.TRUNK_TO_SILO)
        },
    }


def _bound(stage: Stage, before: bytes, certificate: Certificate, resume: ResumePoint) -> bytes:
    return transcript_hash(stage, before, certificate.to_bytes(), resume.to_bytes())


def _frame_vector(session: SealedSession, fields: Mapping[str, Any]) -> dict[str, Any]:
    return dict(fields) | {"plaintext": fields["plaintext"].hex(), "frame": session.seal(**fields).hex()}


def _hex_fields(value: Terms | Entropy) -> dict[str, Any]:
    fields = {name: getattr(value, name) for name in value.__slots__}
    return {name: one.hex() if isinstance(one, bytes) else one for name, one in fields.items()}


def _recorded_ciphertext() -> bytes | None:
    path = FOLDER / "channel.json"
    return bytes.fromhex(json.loads(path.read_text())["mlkem_ciphertext"]) if path.exists() else None


def build() -> dict[str, str]:
    """Return the content of every vector file by its name."""
    vectors = {
        "identity.json": identity_vectors(),
        "channel.json": channel_vectors(_recorded_ciphertext()),
        "secure_sum.json": sum_vectors(root, not_before=NOT_BEFORE, not_after=NOT_AFTER, now=NOW),
    }
    return {name: json.dumps(value, indent=1) + "\n" for name, value in vectors.items()}


def main() -> int:
    """Write the files, or with ``--check`` say which of them would change."""
    check = sys.argv[1:] == ["--check"]
    stale = 0
    for name, content in build().items():
        path = FOLDER / name
        if check and (not path.exists() or path.read_text() != content):
            print(f"{path} is not what make_vectors.py makes")
            stale += 1
        elif not check:
            path.write_text(content)
    return min(stale, 1)


if __name__ == "__main__":
    sys.exit(main())
