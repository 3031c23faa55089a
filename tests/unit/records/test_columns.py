import pytest

from splitlearn.errors import DataError
from splitlearn.records import ColumnMapping, Record


def mapped(text: str, **columns: object) -> dict[str, object]:
    return dict(ColumnMapping.parse(text).apply(Record(columns, "a.csv", 3)).columns)


class TestParse:
    def test_spaces_do_not_matter(self) -> None:
        assert ColumnMapping.parse(" text = sentence , label=gold").pairs == (
            ("text", "sentence"),
            ("label", "gold"),
        )

    @pytest.mark.parametrize("text", ["", "text", "text=", "=a", "a=b,", "a=b,,c=d"])
    def test_refuses_what_is_no_pair(self, text: str) -> None:
        with pytest.raises(DataError, match=r"is no pair; expected NAME=COLUMN pairs"):
            ColumnMapping.parse(text)

    @pytest.mark.parametrize(("text", "word"), [("a=x,a=y", "name 'a'"), ("a=x,b=x", "column 'x'")])
    def test_refuses_doubles(self, text: str, word: str) -> None:
        with pytest.raises(DataError, match=rf"the {word} occurs 2 times"):
            ColumnMapping.parse(text)


class TestApply:
    def test_others_keep_their_names_and_order(self) -> None:
        assert list(mapped("text=b", a=1, b=2, c=3).items()) == [("a", 1), ("text", 2), ("c", 3)]

    def test_columns_can_be_swapped(self) -> None:
        assert mapped("a=b,b=a", a=1, b=2) == {"b": 1, "a": 2}

    def test_column_can_keep_its_name(self) -> None:
        assert mapped("a=a", a=1, b=2) == {"a": 1, "b": 2}

    def test_missing_column_is_named_with_the_known(self) -> None:
        with pytest.raises(DataError, match=r"a\.csv:3: no column 'z', which is mapped to 'text'.*'a', 'b'"):
            mapped("text=z", a=1, b=2)

    def test_refuses_to_cover_another_column(self) -> None:
        with pytest.raises(DataError, match=r"a\.csv:3: the row has a column 'a' already"):
            mapped("a=b", a=1, b=2)

    def test_keeps_the_place(self) -> None:
        record = ColumnMapping.parse("x=a").apply(Record({"a": 1}, "a.csv", 3))
        assert record.where == "a.csv:3"
