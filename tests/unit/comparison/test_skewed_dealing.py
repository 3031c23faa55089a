from collections import Counter
from typing import Any

import pytest

from splitlearn.comparison.dealing import dealt
from splitlearn.comparison.source import Split
from splitlearn.errors import DataError
from splitlearn.records import Record

ROWS = tuple(
    Record({"label": str(number % 2), "text": f"row {number}"}, "made", number) for number in range(2000)
)


def split(**fields: Any) -> Split:
    return Split.model_validate(
        {"file": "f.csv", "silos": ["a", "b", "c", "d"], "shares": [1, 1, 1, 1], **fields}
    )


class TestDealt:
    def test_gives_every_row_to_one_silo_in_the_order_of_the_file(self) -> None:
        parts = dealt(ROWS, split(skew={"column": "label"}))
        assert sorted(row.line for part in parts for row in part) == list(range(2000))
        assert all(list(part) == sorted(part, key=lambda row: row.line) for part in parts)

    def test_of_full_strength_leaves_each_kind_at_its_homes(self) -> None:
        parts = dealt(ROWS, split(skew={"column": "label", "strength": 1.0}))
        assert [{row.columns["label"] for row in part} for part in parts] == [{"0"}, {"1"}, {"0"}, {"1"}]

    def test_of_less_strength_leaves_some_of_each_kind_everywhere(self) -> None:
        # Silo a expects 1000 * (0.6 / 2 + 0.4 / 4) rows of its own kind, 1000 * 0.1 of the other: 400 and
        # 100, with standard deviations of 15.5 and 9.5. Four of them are allowed.
        for index, part in enumerate(dealt(ROWS, split(skew={"column": "label", "strength": 0.6}))):
            counts = Counter(str(row.columns["label"]) for row in part)
            assert counts[str(index % 2)] == pytest.approx(400, abs=62)
            assert counts[str(1 - index % 2)] == pytest.approx(100, abs=38)

    def test_tells_rows_apart_by_words_and_deals_the_rest_to_all(self) -> None:
        rows = [
            Record({"text": text}, "made", number)
            for number, text in enumerate(["A Dog", "one cat", "dog and cat", "nothing"] * 100)
        ]
        chosen = split(silos=["a", "b"], shares=[1, 1], skew={"words": ["dog", "cat"], "strength": 1.0})
        first, second = dealt(rows, chosen)
        assert Counter(str(row.columns["text"]) for row in first).keys() == {
            "A Dog",
            "dog and cat",
            "nothing",
        }
        assert Counter(str(row.columns["text"]) for row in second).keys() == {"one cat", "nothing"}

    def test_sends_further_kinds_round_again(self) -> None:
        rows = [Record({"kind": str(number % 3)}, "made", number) for number in range(300)]
        chosen = split(silos=["a", "b"], shares=[1, 1], skew={"column": "kind", "strength": 1.0})
        parts = dealt(rows, chosen)
        assert [{row.columns["kind"] for row in part} for part in parts] == [{"0", "2"}, {"1"}]

    def test_draws_the_same_rows_again(self) -> None:
        chosen = split(max_rows=100)
        assert dealt(ROWS, chosen) == dealt(ROWS, chosen)
        assert sum(map(len, dealt(ROWS, chosen))) == 100
        assert dealt(ROWS, chosen) != dealt(ROWS, split(max_rows=100, seed=1))

    def test_refuses_a_silo_that_gets_next_to_nothing(self) -> None:
        rows = [Record({"kind": "0"}, "made", number) for number in range(100)]
        with pytest.raises(DataError, match="silo 'b' gets 0 of 100 rows"):
            dealt(rows, split(silos=["a", "b"], shares=[1, 1], skew={"words": ["0", "1"], "strength": 1.0}))

    def test_refuses_a_column_of_too_many_values(self) -> None:
        with pytest.raises(DataError, match="'text' has 2000 different values, the limit is 64"):
            dealt(ROWS, split(skew={"column": "text"}))
