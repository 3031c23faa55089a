"""One direction's key: a new one after so many frames, and no way back."""

import pytest

from splitlearn.channel import ClosedSessionError
from splitlearn.channel.schedule import next_key
from splitlearn.channel.traffic import REKEY_FRAMES, TrafficKey

SECRET = bytes(range(32))
HEADER = bytes(64)


def seal(key: TrafficKey) -> bytes:
    out = bytearray(3 + 16)
    key.seal_into(b"abc", header=HEADER, out=memoryview(out))
    return bytes(out)


def opens(key: TrafficKey, sealed: bytes) -> bool:
    out = bytearray(3)
    return key.open_into(sealed, header=HEADER, out=memoryview(out)) and out == b"abc"


class TestRekey:
    def test_both_sides_change_keys_together(self) -> None:
        sealing, opening = (TrafficKey(SECRET, rekey_frames=3) for _ in range(2))
        assert all(opens(opening, seal(sealing)) for _ in range(10))
        assert sealing.counter == opening.counter == 10

    def test_the_key_after_the_limit_is_the_next_key(self) -> None:
        sealing = TrafficKey(SECRET, rekey_frames=3)
        chains = []
        for _ in range(7):
            chains.append(bytes(sealing._chain))
            seal(sealing)
        second = next_key(SECRET)
        assert chains == [SECRET] * 3 + [second] * 3 + [next_key(second)]

    def test_a_side_that_does_not_change_opens_nothing_more(self) -> None:
        sealing, stuck = TrafficKey(SECRET, rekey_frames=3), TrafficKey(SECRET)
        assert [opens(stuck, seal(sealing)) for _ in range(4)] == [True, True, True, False]

    def test_comes_before_the_limit_of_aes_gcm(self) -> None:
        blocks_per_frame = (4 << 20) // 16
        assert REKEY_FRAMES * blocks_per_frame <= 2**34.5, "RFC 8446, section 5.5"


class TestDrop:
    def test_a_dropped_key_does_not_come_back_with_the_next(self) -> None:
        key = TrafficKey(SECRET, rekey_frames=1)
        key.drop()
        key._advance()
        with pytest.raises(ClosedSessionError):
            seal(key)
        with pytest.raises(ClosedSessionError):
            opens(key, bytes(19))
