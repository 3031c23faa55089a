"""Masks: words that look random to all but those who share a secret, and that cancel in the sum.

Every pair of members shares an X25519 secret. From it, and from job, round, step, attempt and the roster's
hash, both derive one AES-256-CTR keystream; the earlier member of the roster adds it, the later subtracts
it. The first member adds one more stream, the common mask, whose seed all members have and the server has
not: so the sum itself is hidden from the server.
"""

from collections.abc import Sequence

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from splitlearn.identity import encode_name
from splitlearn.privacy.errors import ForgedSumError
from splitlearn.privacy.roster import Roster
from splitlearn.wire import Words32

SEED_BYTES = 32
KEY_BYTES = 32
_PREFIX = b"trunkline/secure-sum/v1/"
_NO_NONCE = bytes(12)  # a seed's key seals one message
_ONE_STREAM = bytes(16)  # a mask's key makes one stream


class MaskStream:
    """One keystream, as words.

    Args:
        key: 32 bytes that make this stream and no other.
    """

    def __init__(self, key: bytes) -> None:
        self._cipher = Cipher(AES256(key), CTR(_ONE_STREAM)).encryptor()

    def next(self, num_words: int) -> Words32:
        """Return the stream's next words."""
        stream = self._cipher.update(bytes(4 * num_words))
        return np.frombuffer(stream, dtype="<u4").astype(np.uint32, copy=False)


def derive_key(secret: bytes, *, use: str, roster: Roster, first: str = "", second: str = "") -> bytes:
    """Return the 32-byte key for one use between two members in one attempt.

    Args:
        secret: What the two share, or the common seed.
        use: "mask", "seed" or "common".
        roster: Who sums what; its place, attempt and hash all go in.
        first: The earlier member of the pair.
        second: The later one.
    """
    place = roster.place
    info = (
        _PREFIX
        + use.encode("ascii")
        + b"\0"
        + encode_name(place.job)
        + place.round.to_bytes(4, "big")
        + place.step.to_bytes(4, "big")
        + roster.attempt.to_bytes(4, "big")
        + (encode_name(first) + encode_name(second) if first else b"")
    )
    return HKDF(SHA256(), KEY_BYTES, roster.digest(), info).derive(secret)


class PairwiseMasks:
    """One member's masks in one attempt over one roster, and the seals between its pairs.

    Args:
        private_key: This member's key of the job.
        roster: Who sums.
        own: This member's name.

    Raises:
        ForgedSumError: A member's key is of low order: it would give a secret that everybody knows.
    """

    def __init__(self, private_key: X25519PrivateKey, *, roster: Roster, own: str) -> None:
        self._roster, self._own = roster, own
        self._own_index = roster.names.index(own)
        self._secrets = {
            name: _shared_secret(private_key, member.key, name)
            for name, member in zip(roster.names, roster.members, strict=True)
            if name != own
        }
        self._streams = [
            (roster.names.index(name) > self._own_index, MaskStream(self.key_with(name, use="mask")))
            for name in self._secrets
        ]

    def key_with(self, name: str, *, use: str) -> bytes:
        """Return the key that this member and another one share for one use."""
        first, second = sorted((self._own, name), key=self._roster.names.index)
        return derive_key(self._secrets[name], use=use, roster=self._roster, first=first, second=second)

    def add_to(self, words: Words32) -> None:
        """Mask the vector's next words in place."""
        for adds, stream in self._streams:
            if adds:
                words += stream.next(len(words))
            else:
                words -= stream.next(len(words))

    def seal_seed(self, seed: bytes, name: str) -> bytes:
        """Return the common mask's seed, sealed for one member."""
        return AESGCM(self.key_with(name, use="seed")).encrypt(_NO_NONCE, seed, self._roster.digest())

    def open_seed(self, sealed: bytes) -> bytes:
        """Return the seed that the roster's first member sealed for this one.

        Raises:
            ForgedSumError: It was not, or not for this roster.
        """
        first = self._roster.names[0]
        try:
            key = self.key_with(first, use="seed")
            return AESGCM(key).decrypt(_NO_NONCE, sealed, self._roster.digest())
        except InvalidTag as error:
            raise ForgedSumError(f"the common mask's seed is not what silo {first!r} sealed") from error


class CommonMask:
    """The mask over the sum, which every member can take off.

    Args:
        seed: 32 random bytes of the roster's first member.
        roster: Who sums.
    """

    def __init__(self, seed: bytes, *, roster: Roster) -> None:
        self._key = derive_key(seed, use="common", roster=roster)

    def stream(self) -> MaskStream:
        """Return the stream from its beginning."""
        return MaskStream(self._key)


def seal_seeds(masks: PairwiseMasks, seed: bytes, names: Sequence[str]) -> tuple[bytes, ...]:
    """Return the seed sealed for each of these members."""
    return tuple(masks.seal_seed(seed, name) for name in names)


def _shared_secret(private_key: X25519PrivateKey, public: bytes, name: str) -> bytes:
    try:
        return private_key.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise ForgedSumError(f"the sum key of silo {name!r} is of low order; it must make another") from error
