"""Chance that must never change: saved runs and other platforms depend on these very numbers."""

from splitlearn.tasks import keyed_digest, keyed_fraction, keyed_random


class TestKeyedDigest:
    def test_known_value(self) -> None:
        assert keyed_digest("x", 1, "a", b"b").hex() == KNOWN_DIGEST

    def test_parts_do_not_run_together(self) -> None:
        assert (
            len({keyed_digest(*parts) for parts in (("x", "ab"), ("xa", "b"), ("x", "a", "b"), ("xab",))})
            == 4
        )

    def test_types_differ(self) -> None:
        assert len({keyed_digest("x", part) for part in (1, "1", b"1")}) == 3


class TestKeyedFraction:
    def test_lies_between_zero_and_one_evenly(self) -> None:
        draws = [keyed_fraction("x", n) for n in range(2000)]
        assert all(0 <= draw < 1 for draw in draws)
        # The mean of 2000 even draws has a standard deviation of 0.0065.
        assert abs(sum(draws) / 2000 - 0.5) < 0.04


class TestKeyedRandom:
    def test_known_sequence(self) -> None:
        chance = keyed_random("x", 1)
        assert [chance.random() for _ in range(2)] == KNOWN_DRAWS


KNOWN_DIGEST = "e9792fa2bddc9d2be3e21c3fe373fdb1846ea8e0b7100f3dc650588dff27089e"
KNOWN_DRAWS = [0.6444357298070184, 0.5959506807164631]
