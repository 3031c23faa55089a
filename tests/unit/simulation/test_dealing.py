from pathlib import Path

import pytest

from splitlearn.errors import DataError
from splitlearn.simulation.dealing import deal, harmonic_shares
from splitlearn.tasks import Record, read_records


def records(count: int) -> list[Record]:
    return [Record({"text": str(n)}, "a.txt", n) for n in range(count)]


class TestHarmonicShares:
    def test_the_first_gets_most(self) -> None:
        assert harmonic_shares(3) == pytest.approx((6 / 11, 3 / 11, 2 / 11))

    def test_sums_up_to_one(self) -> None:
        assert sum(harmonic_shares(7)) == pytest.approx(1)


class TestDeal:
    def test_every_row_goes_to_one_silo_in_order(self) -> None:
        rows = records(500)
        dealt = deal(rows, num_silos=3, seed=0)
        assert sorted(record.line for silo in dealt for record in silo) == list(range(500))
        assert all(list(silo) == sorted(silo, key=lambda record: record.line) for silo in dealt)

    def test_sizes_are_about_the_shares(self) -> None:
        dealt = deal(records(10_000), num_silos=3, seed=0, shares=(5, 3, 2))
        # Binomial of 10,000 rows: five standard deviations are at most 250 rows.
        assert [len(silo) for silo in dealt] == pytest.approx([5000, 3000, 2000], abs=250)

    def test_is_the_same_every_time(self) -> None:
        dealt = deal(records(20), num_silos=3, seed=0, min_rows=1)
        assert [[record.line for record in silo] for silo in dealt] == KNOWN_DEAL

    def test_seed_changes_the_deal(self) -> None:
        assert deal(records(50), num_silos=2, seed=0) != deal(records(50), num_silos=2, seed=1)

    @pytest.mark.parametrize("num_silos", [1, 2, 5])
    def test_every_silo_gets_the_least(self, num_silos: int) -> None:
        dealt = deal(records(4 * num_silos), num_silos=num_silos, seed=0)
        assert [len(silo) for silo in dealt] == [4] * num_silos

    def test_too_few_rows(self) -> None:
        with pytest.raises(DataError, match=r"11 rows are too few for 3 silos of at least 4 rows; give 12"):
            deal(records(11), num_silos=3, seed=0)

    @pytest.mark.parametrize("shares", [(), (1.0,), (1.0, 0.0), (1.0, -1.0)])
    def test_refuses_other_shares(self, shares: tuple[float, ...]) -> None:
        with pytest.raises(DataError, match="are not 2 positive numbers"):
            deal(records(50), num_silos=2, seed=0, shares=shares)

    def test_deals_a_public_file_unevenly(self, test_data: Path) -> None:
        rows = list(read_records(test_data / "data/text/tinystories/tinystories_slice.txt"))
        sizes = [len(silo) for silo in deal(rows, num_silos=3, seed=0)]
        assert sum(sizes) == len(rows)
        assert sizes == sorted(sizes, reverse=True)


KNOWN_DEAL = [[1, 5, 6, 8, 10, 11, 14, 16, 17, 18], [0, 2, 3, 4, 7, 9, 13, 15], [12, 19]]
