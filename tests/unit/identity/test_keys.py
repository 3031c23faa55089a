import pytest

from splitlearn.identity import Context, InvalidKeyError, PublicKey, SignatureError, SigningKey
from splitlearn.identity.keys import signed_bytes

FIELD_PRIME = 2**255 - 19
ORDER_8 = [
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
]
SMALL_ORDER = [
    *(y.to_bytes(32, "little") for y in (0, 1, FIELD_PRIME - 1)),
    *(bytes.fromhex(y) for y in ORDER_8),
]
NOT_CANONICAL = [y.to_bytes(32, "little") for y in (FIELD_PRIME, FIELD_PRIME + 1, 2**255 - 1)]


def with_sign_bit(point: bytes) -> bytes:
    return point[:31] + bytes([point[31] | 0x80])


class TestSign:
    def test_verifies_in_its_context(self) -> None:
        key = SigningKey.generate()
        signature = key.sign(Context.JOB_SPEC, b"spec")
        key.public_key.verify(Context.JOB_SPEC, b"spec", signature)
        assert len(signature) == 64

    @pytest.mark.parametrize("other", [context for context in Context if context is not Context.JOB_SPEC])
    def test_never_verifies_in_another_context(self, other: Context) -> None:
        key = SigningKey.generate()
        signature = key.sign(Context.JOB_SPEC, b"spec")
        with pytest.raises(SignatureError):
            key.public_key.verify(other, b"spec", signature)

    def test_never_verifies_for_another_message_or_key(self) -> None:
        key = SigningKey.generate()
        signature = key.sign(Context.JOB_SPEC, b"spec")
        with pytest.raises(SignatureError):
            key.public_key.verify(Context.JOB_SPEC, b"spec ", signature)
        with pytest.raises(SignatureError):
            SigningKey.generate().public_key.verify(Context.JOB_SPEC, b"spec", signature)

    @pytest.mark.parametrize("length", [0, 63, 65])
    def test_refuses_a_signature_of_another_length(self, length: int) -> None:
        with pytest.raises(SignatureError):
            SigningKey.generate().public_key.verify(Context.JOB_SPEC, b"", bytes(length))

    def test_contexts_cannot_run_into_messages(self) -> None:
        seen = {signed_bytes(context, message) for context in Context for message in (b"", b"\0", b"/silo")}
        assert len(seen) == 3 * len(Context)
        assert signed_bytes(Context.JOB_SPEC, b"ab") == (
            b"trunkline/job-spec/v1\0" + b"\0\0\0\0\0\0\0\2" + b"ab"
        )


class TestPublicKey:
    @pytest.mark.parametrize("point", SMALL_ORDER + NOT_CANONICAL, ids=lambda point: point.hex()[:8])
    def test_refuses_weak_points_with_either_sign(self, point: bytes) -> None:
        for raw in (point, with_sign_bit(point)):
            with pytest.raises(InvalidKeyError):
                PublicKey(raw)

    @pytest.mark.parametrize("length", [0, 31, 33])
    def test_refuses_other_lengths(self, length: int) -> None:
        with pytest.raises(InvalidKeyError):
            PublicKey(b"\7" * length)

    def test_a_point_off_the_curve_verifies_nothing(self) -> None:
        off_curve = PublicKey((2).to_bytes(32, "little"))
        with pytest.raises(SignatureError):
            off_curve.verify(Context.JOB_SPEC, b"", bytes(64))


class TestSigningKey:
    def test_survives_its_private_bytes(self) -> None:
        key = SigningKey.generate()
        assert SigningKey.from_private_bytes(key.private_bytes()).public_key == key.public_key

    @pytest.mark.parametrize("length", [0, 31, 33])
    def test_refuses_other_lengths(self, length: int) -> None:
        with pytest.raises(InvalidKeyError):
            SigningKey.from_private_bytes(bytes(length))

    def test_repr_shows_the_public_half_only(self) -> None:
        key = SigningKey.generate()
        assert key.public_key.raw.hex() in repr(key)
        assert key.private_bytes().hex() not in repr(key)
        assert not hasattr(key, "__dict__")
