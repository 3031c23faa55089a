from pathlib import Path

import pytest

from client_agent.data import BadRowsError, Survey, survey
from splitlearn.errors import DataError
from splitlearn.records import ColumnMapping, format_of
from tests.unit.client_agent.conftest import Write


def surveyed(path: Path, columns: str = "") -> Survey:
    mapping = ColumnMapping.parse(columns) if columns else ColumnMapping()
    return survey(path, data_format=format_of(path), columns=mapping)


class TestSurvey:
    def test_counts_rows_and_kinds(self, write: Write) -> None:
        found = surveyed(write("a.jsonl", '{"b": 1, "a": "x"}\n\n{"a": null, "c": [1]}\n'))
        assert (found.num_rows, found.columns) == (
            2,
            {"a": ("null", "text"), "b": ("number",), "c": ("list",)},
        )

    def test_counts_the_rows_that_lack_a_column(self, write: Write) -> None:
        found = surveyed(write("a.jsonl", '{"a": "x", "b": 1}\n{}\n{"a": null}\n'))
        assert (found.num_rows, found.missing) == (3, {"a": 1, "b": 2})

    def test_names_columns_as_mapped(self, write: Write) -> None:
        assert list(surveyed(write("a.csv", "s,l\nx,1\n"), "text=s").columns) == ["l", "text"]

    def test_missing_file_is_refused_by_name(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"gone\.txt: cannot read the data"):
            surveyed(tmp_path / "gone.txt")

    def test_file_without_rows_is_refused(self, write: Write) -> None:
        with pytest.raises(DataError, match="no rows"):
            surveyed(write("a.jsonl", "\n"))


class TestSchemaDigest:
    def test_is_the_same_for_other_values(self, write: Write) -> None:
        one, two = write("a.jsonl", '{"a": "x", "b": 1}\n'), write("b.jsonl", '{"b": 7, "a": "secret"}\n')
        assert surveyed(one).schema_digest == surveyed(two).schema_digest

    @pytest.mark.parametrize("other", ['{"a": 1}', '{"b": "x"}', '{"a": "x", "b": "x"}'])
    def test_differs_for_other_columns(self, write: Write, other: str) -> None:
        one, two = write("a.jsonl", '{"a": "x"}\n'), write("b.jsonl", other)
        assert surveyed(one).schema_digest != surveyed(two).schema_digest


class TestBadRows:
    def test_are_counted_and_the_first_twenty_named_by_line(self, write: Write) -> None:
        path = write("a.jsonl", '{"a": 1}\n' + "no\n" * 25)
        with pytest.raises(BadRowsError, match="25 bad rows") as caught:
            surveyed(path)
        lines = [int(sentence.split(":")[1]) for sentence in caught.value.sentences]
        assert lines == list(range(2, 22))

    def test_of_which_more_follow_are_said_to(self, write: Write) -> None:
        with pytest.raises(BadRowsError, match="and 5 more"):
            surveyed(write("a.jsonl", "no\n" * 25))

    def test_an_end_in_the_middle_is_one_of_them(self, write: Write) -> None:
        with pytest.raises(BadRowsError, match="2 bad rows"):
            surveyed(write("a.csv", 'a,b\n1\n"never closed,\n'))

    def test_a_wrong_file_is_no_bad_row(self, write: Write) -> None:
        with pytest.raises(DataError, match="no rows") as caught:
            surveyed(write("a.csv", "a,b\n"))
        assert not isinstance(caught.value, BadRowsError)
