import hashlib

import pytest

from splitlearn.errors import DataError
from splitlearn.tasks import Example, TokenRow, split_holdout


def examples(count: int, *, distinct: bool = True) -> list[Example]:
    row = TokenRow((1, 2), (1, 2))
    return [
        Example((row,), 0, hashlib.sha256(str(n if distinct else 0).encode()).digest()[:16])
        for n in range(count)
    ]


class TestSplitHoldout:
    @pytest.mark.parametrize("share", [0.05, 0.1, 0.5])
    def test_holds_out_about_the_share(self, share: float) -> None:
        split = split_holdout(examples(4000), share=share, seed=0, silo_name="a")
        # Binomial of 4000 rows: five standard deviations are at most 160 rows.
        assert abs(len(split.heldout) - 4000 * share) < 160
        assert len(split.training) + len(split.heldout) == 4000

    def test_is_the_same_every_time_and_keeps_order(self) -> None:
        rows = examples(100)
        first = split_holdout(rows, share=0.2, seed=3, silo_name="a")
        assert first == split_holdout(rows, share=0.2, seed=3, silo_name="a")
        assert sorted(first.heldout, key=rows.index) == list(first.heldout)

    def test_known_split(self) -> None:
        rows = examples(40)
        split = split_holdout(rows, share=0.1, seed=0, silo_name="a")
        assert [rows.index(example) for example in split.heldout] == KNOWN_HELDOUT

    @pytest.mark.parametrize(("seed", "silo"), [(1, "a"), (0, "b")])
    def test_depends_on_seed_and_silo(self, seed: int, silo: str) -> None:
        rows = examples(100)
        base = split_holdout(rows, share=0.2, seed=0, silo_name="a")
        assert split_holdout(rows, share=0.2, seed=seed, silo_name=silo).heldout != base.heldout

    def test_rows_added_later_move_no_other(self) -> None:
        rows = examples(300)
        few = split_holdout(rows[:200], share=0.2, seed=0, silo_name="a")
        many = split_holdout(rows, share=0.2, seed=0, silo_name="a")
        assert many.heldout[: len(few.heldout)] == few.heldout

    def test_equal_rows_stay_on_one_side(self) -> None:
        rows = examples(50) * 3
        split = split_holdout(rows, share=0.3, seed=0, silo_name="a")
        assert not {e.fingerprint for e in split.heldout} & {e.fingerprint for e in split.training}

    @pytest.mark.parametrize("count", [2, 3, 5])
    @pytest.mark.parametrize("share", [0.0001, 0.9999])
    @pytest.mark.parametrize("distinct", [True, False])
    def test_neither_side_is_ever_empty(self, count: int, share: float, *, distinct: bool) -> None:
        split = split_holdout(examples(count, distinct=distinct), share=share, seed=0, silo_name="a")
        assert {len(split.training), len(split.heldout)} == {1, count - 1}

    @pytest.mark.parametrize("count", [0, 1])
    def test_too_few_rows_says_how_many_are_needed(self, count: int) -> None:
        with pytest.raises(DataError, match=rf"silo 'a': {count} usable rows, needs at least 2"):
            split_holdout(examples(count), share=0.1, seed=0, silo_name="a")


KNOWN_HELDOUT = [3, 25, 33]
