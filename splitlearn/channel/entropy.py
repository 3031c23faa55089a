"""The random bytes of one handshake, as a value, so that vectors and tests can fix them."""

import secrets
from dataclasses import dataclass, field

RANDOM_BYTES = 32
X25519_BYTES = 32
MLKEM_SEED_BYTES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Entropy:
    """Everything random that one side puts into one handshake; never used twice.

    The trunk's encapsulation draws its own randomness inside the ``cryptography`` library.

    Attributes:
        random: 32 bytes, sent in clear.
        x25519_private: 32 bytes, secret.
        mlkem_seed: 64 bytes (d || z of FIPS 203, section 7.1), secret; only the silo uses it.
    """

    random: bytes = field(repr=False)
    x25519_private: bytes = field(repr=False)
    mlkem_seed: bytes = field(repr=False)

    @classmethod
    def fresh(cls) -> "Entropy":
        """Return bytes from the operating system."""
        return cls(
            random=secrets.token_bytes(RANDOM_BYTES),
            x25519_private=secrets.token_bytes(X25519_BYTES),
            mlkem_seed=secrets.token_bytes(MLKEM_SEED_BYTES),
        )
