"""The fixed sum, recomputed from docs/protocol.md with the standard library and bare primitives."""

import hashlib
import hmac
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

PREFIX = b"trunkline/secure-sum/v1/"
NAMES = ("east", "north", "west")


@pytest.fixture(scope="module")
def vector() -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(
        (Path(__file__).parents[2] / "vectors" / "secure_sum.json").read_text()
    )
    return fields


def name(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


def hkdf(salt: bytes, secret: bytes, info: bytes) -> bytes:
    extracted = hmac.digest(salt, secret, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


def stream(key: bytes, num_words: int) -> list[int]:
    cipher = Cipher(AES(key), CTR(bytes(16))).encryptor()
    return list(struct.unpack(f"<{num_words}I", cipher.update(bytes(4 * num_words))))


def signed(context: bytes, message: bytes) -> bytes:
    return context + b"\0" + struct.pack(">Q", len(message)) + message


class Sum:
    """All that section 14 derives from the vector's inputs."""

    def __init__(self, vector: dict[str, Any]) -> None:
        self.vector = vector
        digest = bytes.fromhex(vector["spec_digest"])
        self.position = struct.pack(">II", vector["round"], vector["step"])
        self.place = name(vector["job"]) + digest + self.position
        self.private = {
            silo: X25519PrivateKey.from_private_bytes(bytes.fromhex(vector["silos"][silo]["x25519_private"]))
            for silo in NAMES
        }
        self.public = {silo: key.public_key().public_bytes_raw() for silo, key in self.private.items()}
        self.numbers = {
            silo: self.public[silo] + struct.pack(">QQI", vector["silos"][silo]["num_tokens"], 4, 1)
            for silo in NAMES
        }
        certificates = {silo: bytes.fromhex(vector["messages"][silo]["certificate"]) for silo in NAMES}
        members = b"".join(
            bytes([len(certificates[silo])]) + certificates[silo] + self.numbers[silo] for silo in NAMES
        )
        head = self.place + struct.pack(">IHQ", 1, 3, 400)
        self.roster = hashlib.sha256(b"trunkline/sum-roster/v1\0" + head + members).digest()

    def key(self, use: bytes, first: str, second: str) -> bytes:
        secret = self.private[first].exchange(X25519PublicKey.from_public_bytes(self.public[second]))
        return hkdf(self.roster, secret, self.info(use) + name(first) + name(second))

    def info(self, use: bytes) -> bytes:
        return PREFIX + use + b"\0" + name(self.vector["job"]) + self.position + struct.pack(">I", 1)

    def common(self) -> list[int]:
        return stream(hkdf(self.roster, bytes.fromhex(self.vector["seed"]), self.info(b"common")), 4)

    def words(self, silo: str) -> list[int]:
        """A silo's words before any mask."""
        share = self.vector["silos"][silo]["num_tokens"] / 400
        values = struct.unpack("<4f", struct.pack("<4f", *self.vector["silos"][silo]["changes"]))
        return [round(value * share * 2**24) % 2**32 for value in values]


def unpacked(text: str) -> list[int]:
    return list(struct.unpack("<4I", bytes.fromhex(text)))


class TestVector:
    def test_signatures(self, vector: dict[str, Any]) -> None:
        one = Sum(vector)
        for silo in NAMES:
            key = Ed25519PrivateKey.from_private_bytes(
                bytes.fromhex(vector["silos"][silo]["signing_private"])
            )
            said = vector["messages"][silo]
            assert said["key"] == one.public[silo].hex()
            statement = signed(b"trunkline/sum-key/v1", one.place + one.numbers[silo])
            assert said["words_signature"] == key.sign(statement).hex()
            consent = signed(b"trunkline/sum-roster/v1", one.roster)
            assert said["roster_signature"] == key.sign(consent).hex()

    def test_sealed_seeds(self, vector: dict[str, Any]) -> None:
        one = Sum(vector)
        assert vector["sealed_seeds"]["east"] is None
        for silo in NAMES[1:]:
            sealed = bytes.fromhex(vector["sealed_seeds"][silo])
            opened = AESGCM(one.key(b"seed", "east", silo)).decrypt(bytes(12), sealed, one.roster)
            assert opened.hex() == vector["seed"]

    def test_masked_words(self, vector: dict[str, Any]) -> None:
        one = Sum(vector)
        masks = {
            (first, second): stream(one.key(b"mask", first, second), 4)
            for first, second in (("east", "north"), ("east", "west"), ("north", "west"))
        }
        for silo in NAMES:
            words = one.words(silo)
            for (first, second), mask in masks.items():
                sign = (silo == first) - (silo == second)
                words = [(word + sign * bit) % 2**32 for word, bit in zip(words, mask, strict=True)]
            if silo == "east":
                words = [(word + bit) % 2**32 for word, bit in zip(words, one.common(), strict=True)]
            assert unpacked(vector["messages"][silo]["masked"]) == words

    def test_total_and_sum(self, vector: dict[str, Any]) -> None:
        one = Sum(vector)
        total = [sum(column) % 2**32 for column in zip(*map(one.words, NAMES), strict=True)]
        assert unpacked(vector["sum"]) == total
        shown = [(word + bit) % 2**32 for word, bit in zip(total, one.common(), strict=True)]
        assert unpacked(vector["total"]) == shown
        means = [(word - 2**32 if word >= 2**31 else word) / 2**24 for word in total]
        assert means == pytest.approx([-0.25, 0.03125, 1e-7, -1.5], abs=1.5 * 2**-24)
