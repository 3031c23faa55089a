"""The fixed vectors, recomputed from docs/protocol.md with the standard library and bare primitives.

Nothing here calls the channel's own transcript, key schedule or framing, except to replay the recorded
handshake through it at the end.
"""

import hashlib
import hmac
import json
import runpy
import struct
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from splitlearn.channel import Entropy, Established, ResumePoint, SeenHandshakes, SiloHandshake, Terms
from splitlearn.identity import Certificate, Identity, PublicKey, SigningKey, TrustStore
from tests.unit.channel.conftest import as_frame

FOLDER = Path(__file__).parents[2] / "vectors"
PREFIX = b"trunkline/channel/v1/"


@pytest.fixture(scope="module")
def channel() -> dict[str, Any]:
    return _read("channel.json")


@pytest.fixture(scope="module")
def identity() -> dict[str, Any]:
    return _read("identity.json")


def _read(name: str) -> dict[str, Any]:
    fields = json.loads((FOLDER / name).read_text())
    return {field: _unhexed(value) for field, value in fields.items()}


def _unhexed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _unhexed(one) for name, one in value.items()}
    if isinstance(value, str) and len(value) >= 12 and set(value) <= set("0123456789abcdef"):
        return bytes.fromhex(value)
    return value


def prefixed(*parts: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def stage(label: bytes, *parts: bytes) -> bytes:
    return hashlib.sha256(PREFIX + label + b"\0" + prefixed(*parts)).digest()


def expand(key: bytes, info: bytes) -> bytes:
    """HKDF-Expand of RFC 5869, section 2.3, for 32 bytes."""
    return hmac.digest(key, info + b"\1", "sha256")


def ed25519(private: bytes, context: bytes, message: bytes) -> bytes:
    signed = context + b"\0" + struct.pack(">Q", len(message)) + message
    return Ed25519PrivateKey.from_private_bytes(private).sign(signed)


def sealed_part(message: bytes, *, clear_bytes: int) -> bytes:
    return message[64 + clear_bytes :]


class Recomputed:
    """The whole handshake, from the seeds alone."""

    def __init__(self, channel: dict[str, Any], identity: dict[str, Any]) -> None:
        self.channel, self.certificates = channel, identity["certificates"]
        silo, trunk = channel["entropy"]["silo"], channel["entropy"]["trunk"]
        self.kem = MLKEM768PrivateKey.from_seed_bytes(silo["mlkem_seed"])
        self.silo_x, self.trunk_x = (
            X25519PrivateKey.from_private_bytes(one["x25519_private"]) for one in (silo, trunk)
        )
        self.hello = self._framed(1, 0, self._hello_body(silo["random"]))
        answer = trunk["random"] + self._share(self.trunk_x) + channel["mlkem_ciphertext"]
        self.reply_head = self._envelope(2, 1, 1152 + self._proof_bytes("worker")) + answer
        self.confirm_head = self._envelope(3, 0, self._proof_bytes("silo"))
        self._run()

    def _run(self) -> None:
        resume = {side: struct.pack(">Q", seq) for side, seq in self.channel["resume"].items()}
        worker, silo = (self.certificates[name]["bytes"] for name in ("worker", "silo"))
        x25519 = self.silo_x.exchange(X25519PublicKey.from_public_bytes(self._share(self.trunk_x)))
        mlkem = self.kem.decapsulate(self.channel["mlkem_ciphertext"])
        self.secrets = {"x25519": x25519, "mlkem": mlkem}
        exchange = stage(b"exchange", self.hello, self.reply_head)
        self.prk = hmac.digest(exchange, x25519 + mlkem, "sha256")
        reply_bound = stage(b"reply", exchange, worker, resume["trunk"])
        self.reply = self.reply_head + self._proof("worker", b"reply", exchange, reply_bound, resume["trunk"])
        replied = stage(b"replied", reply_bound, sealed_part(self.reply, clear_bytes=1152))
        confirm_bound = stage(b"confirm", replied, silo, resume["silo"])
        self.confirm = self.confirm_head + self._proof(
            "silo", b"confirm", replied, confirm_bound, resume["silo"]
        )
        traffic = stage(b"traffic", confirm_bound, self.confirm)
        self.transcript = {
            "exchange": exchange,
            "reply": reply_bound,
            "replied": replied,
            "confirm": confirm_bound,
            "traffic": traffic,
        }

    def key(self, use: str, transcript: str) -> bytes:
        return self._key(use.encode(), self.transcript[transcript])

    def _key(self, use: bytes, transcript: bytes) -> bytes:
        return expand(self.prk, PREFIX + use + b"\0" + transcript)

    def _proof(self, who: str, use: bytes, before: bytes, bound: bytes, resume: bytes) -> bytes:
        party = self.certificates[who]
        signature = ed25519(party["private"], b"trunkline/handshake/v1/" + who.encode(), bound)
        mac = hmac.digest(self._key(use + b"-mac", before), bound, "sha256")
        plaintext = bytes([len(party["bytes"])]) + party["bytes"] + signature + mac + resume
        header = (self.reply_head if who == "worker" else self.confirm_head)[:64]
        return AESGCM(self._key(use + b"-seal", before)).encrypt(bytes(12), plaintext, header)

    def _proof_bytes(self, who: str) -> int:
        return 1 + len(self.certificates[who]["bytes"]) + 64 + 32 + 8 + 16

    def _hello_body(self, random: bytes) -> bytes:
        terms = self.channel["terms"]
        job, silo, worker = (
            bytes([len(name)]) + name.encode()
            for name in (terms["job_id"], terms["silo_name"], terms["worker_name"])
        )
        return b"".join(
            (
                b"\0\2",
                random,
                self._share(self.silo_x),
                self.kem.public_key().public_bytes_raw(),
                job,
                struct.pack(">HI", terms["replica"], terms["epoch"]),
                terms["spec_digest"],
                silo,
                worker,
            )
        )

    def _framed(self, kind: int, direction: int, body: bytes) -> bytes:
        return self._envelope(kind, direction, len(body)) + body

    def _envelope(self, kind: int, direction: int, body_bytes: int, *sealed: int) -> bytes:
        terms = self.channel["terms"]
        tag = hashlib.sha256(b"trunkline/job-tag/v1\0" + terms["job_id"].encode()).digest()[:16]
        start = struct.pack(
            ">4sBBHII", b"TRK1", kind, direction, terms["replica"], body_bytes, terms["epoch"]
        )
        return start + tag + struct.pack(">IIQQII", *(sealed or (0,) * 6))

    def first_frame(self, direction: int, use: str, vector: dict[str, Any]) -> bytes:
        plaintext = vector["plaintext"]
        sealed_fields = (vector["round_number"], vector["step"], 0, vector["message_seq"], 0, len(plaintext))
        header = self._envelope(4, direction, len(plaintext) + 16, *sealed_fields)
        return header + AESGCM(self.key(use, "traffic")).encrypt(bytes(12), plaintext, header)

    @staticmethod
    def _share(private: X25519PrivateKey) -> bytes:
        return private.public_key().public_bytes_raw()


@pytest.fixture(scope="module")
def recomputed(channel: dict[str, Any], identity: dict[str, Any]) -> Recomputed:
    return Recomputed(channel, identity)


class TestIdentityVectors:
    @pytest.mark.parametrize("who", ["silo", "worker", "signer"])
    def test_certificates(self, identity: dict[str, Any], who: str) -> None:
        vector = identity["certificates"][who]
        kind = {"silo": 1, "worker": 2, "spec-signer": 3}[vector["kind"]]
        name = vector["name"].encode()
        signed = b"TKC1" + bytes([kind, len(name)]) + name + vector["public"]
        signed += struct.pack(">QQQ", vector["serial"], vector["not_before"], vector["not_after"])
        signature = ed25519(identity["root"]["private"], b"trunkline/certificate/v1", signed)
        assert vector["bytes"] == signed + signature

    def test_revocation_list(self, identity: dict[str, Any]) -> None:
        vector = identity["revocation_list"]
        signed = b"TKR1" + struct.pack(">QQI", vector["number"], vector["issued_at"], len(vector["serials"]))
        signed += b"".join(struct.pack(">Q", serial) for serial in vector["serials"])
        signature = ed25519(identity["root"]["private"], b"trunkline/revocation-list/v1", signed)
        assert vector["bytes"] == signed + signature

    def test_spec_signature(self, identity: dict[str, Any]) -> None:
        signer, spec = identity["certificates"]["signer"], identity["spec"]
        signature = ed25519(signer["private"], b"trunkline/job-spec/v1", spec["bytes"])
        assert spec["signature"] == bytes([len(signer["bytes"])]) + signer["bytes"] + signature

    def test_fingerprint(self, identity: dict[str, Any]) -> None:
        alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
        root = identity["root"]
        digest = hashlib.sha256(b"trunkline/root-fingerprint/v1\0" + root["public"]).digest()[:20]
        number = int.from_bytes(digest, "big")
        body = "".join(alphabet[number >> shift & 31] for shift in range(155, -1, -5))
        check = hashlib.sha256(b"trunkline/root-fingerprint-check/v1\0" + body.encode()).digest()
        number = int.from_bytes(check[:3], "big") >> 4
        text = body + "".join(alphabet[number >> shift & 31] for shift in (15, 10, 5, 0))
        assert root["fingerprint"].replace("-", "") == text


class TestChannelVectors:
    def test_shared_secrets(self, channel: dict[str, Any], recomputed: Recomputed) -> None:
        assert channel["secrets"] == recomputed.secrets

    @pytest.mark.parametrize("message", ["hello", "reply", "confirm"])
    def test_messages(self, channel: dict[str, Any], recomputed: Recomputed, message: str) -> None:
        assert channel["messages"][message] == getattr(recomputed, message)

    def test_transcript(self, channel: dict[str, Any], recomputed: Recomputed) -> None:
        assert channel["transcript"] == recomputed.transcript

    @pytest.mark.parametrize(
        ("use", "transcript"),
        [
            ("reply-seal", "exchange"),
            ("reply-mac", "exchange"),
            ("confirm-seal", "replied"),
            ("confirm-mac", "replied"),
            ("silo-to-trunk", "traffic"),
            ("trunk-to-silo", "traffic"),
        ],
    )
    def test_keys(self, channel: dict[str, Any], recomputed: Recomputed, use: str, transcript: str) -> None:
        assert channel["keys"][use] == recomputed.key(use, transcript)

    def test_no_key_has_two_uses(self, channel: dict[str, Any]) -> None:
        keys = [*channel["keys"].values(), *channel["next_keys"].values()]
        assert len(set(keys)) == 8

    @pytest.mark.parametrize("use", ["silo-to-trunk", "trunk-to-silo"])
    def test_next_keys(self, channel: dict[str, Any], use: str) -> None:
        assert channel["next_keys"][use] == expand(channel["keys"][use], PREFIX + b"next-key\0")

    @pytest.mark.parametrize(("direction", "name"), [(0, "silo_to_trunk"), (1, "trunk_to_silo")])
    def test_first_sealed_frames(
        self, channel: dict[str, Any], recomputed: Recomputed, direction: int, name: str
    ) -> None:
        vector = channel["frames"][name]
        use = name.replace("_", "-")
        assert vector["frame"] == recomputed.first_frame(direction, use, vector)


class TestReplayAtTheInitiator:
    """The recorded reply, ciphertext included, given to a silo with the recorded entropy."""

    @pytest.fixture
    def established(self, channel: dict[str, Any], identity: dict[str, Any]) -> Established:
        silo = identity["certificates"]["silo"]
        handshake = SiloHandshake(
            Terms(**channel["terms"]),
            identity=Identity(
                Certificate.from_bytes(silo["bytes"]), SigningKey.from_private_bytes(silo["private"])
            ),
            trust=TrustStore(PublicKey(identity["root"]["public"])),
            resume=ResumePoint(channel["resume"]["silo"]),
            now=datetime.fromisoformat(channel["now"]),
            seen=SeenHandshakes(),
            entropy=Entropy(**channel["entropy"]["silo"]),
        )
        assert handshake.hello() == channel["messages"]["hello"]
        confirm = handshake.receive_reply(as_frame(channel["messages"]["reply"]))
        assert confirm == channel["messages"]["confirm"]
        return handshake.established()

    def test_learns_the_trunks_resume_point(self, channel: dict[str, Any], established: Established) -> None:
        assert established.peer_resume == ResumePoint(channel["resume"]["trunk"])

    def test_seals_the_recorded_frame(self, channel: dict[str, Any], established: Established) -> None:
        vector = channel["frames"]["silo_to_trunk"]
        frame = established.session.seal(
            vector["plaintext"],
            round_number=vector["round_number"],
            step=vector["step"],
            message_seq=vector["message_seq"],
        )
        assert bytes(frame) == vector["frame"]

    def test_opens_the_recorded_frame(self, channel: dict[str, Any], established: Established) -> None:
        vector = channel["frames"]["trunk_to_silo"]
        assert bytes(established.session.open(as_frame(vector["frame"]))) == vector["plaintext"]


class TestScript:
    def test_makes_the_files_that_are_committed(self) -> None:
        made = runpy.run_path(str(FOLDER / "make_vectors.py"))["build"]()
        for name, content in made.items():
            assert (FOLDER / name).read_text() == content
