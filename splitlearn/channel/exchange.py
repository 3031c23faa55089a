"""The key exchange: X25519 (RFC 7748) and ML-KEM-768 (FIPS 203) side by side.

The session's keys stay secret as long as either of the two holds.
"""

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from splitlearn.channel.entropy import Entropy
from splitlearn.channel.errors import LowOrderShareError, MalformedHandshakeError, ReflectedMessageError


class Ephemeral:
    """One side's ephemeral keys, for one handshake.

    Args:
        entropy: Where they come from.
    """

    __slots__ = ("_mlkem", "_x25519", "random", "share")

    def __init__(self, entropy: Entropy) -> None:
        self._x25519 = X25519PrivateKey.from_private_bytes(entropy.x25519_private)
        self._mlkem = MLKEM768PrivateKey.from_seed_bytes(entropy.mlkem_seed)
        self.random = entropy.random
        self.share = self._x25519.public_key().public_bytes_raw()

    @property
    def kem_key(self) -> bytes:
        """The encapsulation key that the silo offers, 1184 bytes."""
        return self._mlkem.public_key().public_bytes_raw()

    def agree(self, peer_share: bytes) -> bytes:
        """Return the X25519 shared secret, 32 bytes.

        Raises:
            ReflectedMessageError: The share is our own.
            LowOrderShareError: The secret would be all zero.
        """
        if peer_share == self.share:
            raise ReflectedMessageError("the peer's X25519 share is our own: our message came back")
        try:
            return self._x25519.exchange(X25519PublicKey.from_public_bytes(peer_share))
        except ValueError as error:
            raise LowOrderShareError("the peer's X25519 share has low order: the secret is zero") from error

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """Return the ML-KEM shared secret, 32 bytes; for a changed ciphertext it is another one.

        Raises:
            MalformedHandshakeError: No ciphertext of ML-KEM-768.
        """
        try:
            return self._mlkem.decapsulate(ciphertext)
        except ValueError as error:
            raise MalformedHandshakeError("the reply holds no ML-KEM-768 ciphertext") from error

    def __repr__(self) -> str:
        return f"Ephemeral(share={self.share.hex()[:16]}...)"


def encapsulate(kem_key: bytes) -> tuple[bytes, bytes]:
    """Return a fresh ML-KEM shared secret, 32 bytes, and its ciphertext, 1088 bytes.

    Raises:
        MalformedHandshakeError: No encapsulation key of ML-KEM-768 (FIPS 203, section 7.2).
    """
    try:
        return MLKEM768PublicKey.from_public_bytes(kem_key).encapsulate()
    except ValueError as error:
        raise MalformedHandshakeError("the hello holds no ML-KEM-768 encapsulation key") from error
