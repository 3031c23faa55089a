import json
from pathlib import Path

import pytest

from splitlearn.errors import DataError, StorageError
from splitlearn.records import MissingColumnError, Record, read_records, write_records


class TestRecord:
    def test_missing_column_is_told_to_others_without_the_columns_there_are(self) -> None:
        with pytest.raises(MissingColumnError) as caught:
            Record({"private": "x"}, "a.csv", 2).text("question")
        assert caught.value.public == "there is no column 'question' in some rows"

    @pytest.mark.parametrize(
        ("value", "text"), [("a ", "a "), ("", ""), (3, "3"), (0.5, "0.5"), (True, "true"), (False, "false")]
    )
    def test_text_of_a_value_is_as_json_writes_it(self, value: object, text: str) -> None:
        assert Record({"a": value}, "x.jsonl", 7).text("a") == text

    @pytest.mark.parametrize(("value", "kind"), [(None, "null"), ([1], "a list"), ({"b": 1}, "an object")])
    def test_refuses_what_has_no_text(self, value: object, kind: str) -> None:
        with pytest.raises(DataError, match=rf"x\.jsonl:7: column 'a' holds {kind}"):
            Record({"a": value}, "x.jsonl", 7).text("a")

    def test_missing_column_lists_the_known(self) -> None:
        with pytest.raises(DataError, match=r"x\.jsonl:7: no column 'b'; the row has 'a', 'c'"):
            Record({"a": 1, "c": 2}, "x.jsonl", 7).text("b")

    def test_many_columns_are_not_all_listed(self) -> None:
        with pytest.raises(DataError, match=r"'19' and 80 more; "):
            Record({str(n): n for n in range(100)}, "x.jsonl", 7).text("b")

    def test_repr_shows_no_value(self) -> None:
        assert "secret" not in repr(Record({"text": "secret"}, "x.jsonl", 7))


class TestWriteRecords:
    def test_what_is_written_reads_back(self, tmp_path: Path) -> None:
        rows: list[dict[str, object]] = [{"text": 'a\n"b" é\u2028', "n": {"x": [1]}}, {"text": "c"}]
        path = tmp_path / "deep" / "rows.jsonl"
        assert write_records(path, (Record(row, "m", 1) for row in rows)) == 2
        assert [record.columns for record in read_records(path)] == rows

    def test_nothing_is_left_of_a_failure(self, tmp_path: Path) -> None:
        path = tmp_path / "rows.jsonl"
        path.write_text(json.dumps({"old": 1}))
        with pytest.raises(TypeError):
            write_records(path, [Record({"a": 1}, "m", 1), Record({"a": object()}, "m", 2)])
        assert [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]
        assert path.read_text() == '{"old": 1}'

    def test_unwritable_folder_is_a_storage_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StorageError, match="cannot write the rows"):
            write_records(tmp_path / "file" / "rows.jsonl", [])
