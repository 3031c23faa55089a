"""One direction's traffic key: AES-256-GCM, a counter for a nonce, a new key every 65,536 frames."""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.utils import Buffer

from splitlearn.channel.errors import ClosedSessionError
from splitlearn.channel.schedule import next_key
from splitlearn.wire import TAG_BYTES

NONCE_BYTES = 12
REKEY_FRAMES = 1 << 16
"""Frames per key: 2^34 AES blocks at 4 MiB a frame, below the 2^34.5 that RFC 8446, section 5.5 allows."""


class TrafficKey:
    """Seals or opens one direction's frames, in order.

    Args:
        secret: The first 32-byte key of the direction.
        rekey_frames: After so many frames the key is replaced by its successor. Both sides must agree.
    """

    __slots__ = ("_aead", "_chain", "_counter", "_rekey_frames")

    def __init__(self, secret: bytes, *, rekey_frames: int = REKEY_FRAMES) -> None:
        self._chain = bytearray(secret)
        self._aead: AESGCM | None = AESGCM(self._chain)
        self._rekey_frames = rekey_frames
        self._counter = 0

    @property
    def counter(self) -> int:
        """Number of the next frame, from 0."""
        return self._counter

    def seal_into(self, plaintext: Buffer, *, header: Buffer, out: memoryview) -> None:
        """Write ciphertext and tag of the next frame.

        Args:
            plaintext: Any bytes.
            header: The frame's 64 envelope bytes, authenticated.
            out: Exactly 16 bytes longer than the plaintext.

        Raises:
            ClosedSessionError: The key was dropped.
        """
        self._cipher().encrypt_into(self._nonce(), plaintext, header, out)
        self._advance()

    def open_into(self, sealed: Buffer, *, header: Buffer, out: memoryview) -> bool:
        """Write the plaintext of the next frame.

        Args:
            sealed: Ciphertext and tag.
            header: The frame's 64 envelope bytes.
            out: Exactly 16 bytes shorter than ``sealed``.

        Returns:
            Whether the tag fits. If not, ``out`` is zeroed, for it held what nobody vouches for.

        Raises:
            ClosedSessionError: The key was dropped.
        """
        cipher = self._cipher()
        try:
            cipher.decrypt_into(self._nonce(), sealed, header, out)
        except InvalidTag:
            out[:] = bytes(len(out))
            return False
        self._advance()
        return True

    def drop(self) -> None:
        """Forget the key; nothing can be sealed or opened any more."""
        self._chain[:] = bytes(len(self._chain))
        self._aead = None

    def _cipher(self) -> AESGCM:
        # Read once: another thread may drop the key at any moment.
        cipher = self._aead
        if cipher is None:
            raise ClosedSessionError("the session is closed; connect again with a new handshake")
        return cipher

    def _nonce(self) -> bytes:
        return self._counter.to_bytes(NONCE_BYTES, "big")

    def _advance(self) -> None:
        self._counter += 1
        if self._counter % self._rekey_frames == 0 and self._aead is not None:
            self._chain[:] = next_key(self._chain)
            self._aead = AESGCM(self._chain)

    def __repr__(self) -> str:
        return f"TrafficKey(counter={self._counter})"


def seal_once(key: bytes, plaintext: bytes, *, header: bytes) -> bytes:
    """Seal the only message of a handshake key."""
    return AESGCM(key).encrypt(bytes(NONCE_BYTES), plaintext, header)


def open_once(key: bytes, sealed: bytes, *, header: bytes) -> bytes | None:
    """Open the only message of a handshake key, or return None where the tag does not fit."""
    if len(sealed) < TAG_BYTES:
        return None
    try:
        return AESGCM(key).decrypt(bytes(NONCE_BYTES), sealed, header)
    except InvalidTag:
        return None
