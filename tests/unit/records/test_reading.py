"""Files to rows: what is read, and the sentence for everything that is not."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitlearn.errors import DataError
from splitlearn.records import ColumnMapping, DataFormat, ReadLimits, Record, format_of, read_records


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, bytes], Path]:
    def make(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return make


Write = Callable[[str, bytes], Path]


def read(path: Path, **options: object) -> list[Record]:
    return list(read_records(path, **options))  # type: ignore[arg-type]


def columns(path: Path) -> list[dict[str, object]]:
    return [dict(record.columns) for record in read(path)]


class TestFormatOf:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("a.txt", "text"),
            ("a.JSONL", "jsonl"),
            ("a.ndjson", "jsonl"),
            ("a.csv", "csv"),
            ("a.b.tsv", "tsv"),
        ],
    )
    def test_goes_by_suffix(self, name: str, expected: str) -> None:
        assert format_of(Path(name)) == expected

    @pytest.mark.parametrize("name", ["a.parquet", "a", "a.jsonl.gz"])
    def test_unknown_suffix_lists_the_known(self, write: Write, name: str) -> None:
        with pytest.raises(DataError, match=r"names no known format.*\.jsonl.*state the format"):
            format_of(write(name, b"x\n"))

    def test_a_missing_file_without_a_known_suffix_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"nope: cannot read the data \(No such file"):
            format_of(tmp_path / "nope")

    def test_stated_format_wins(self, write: Write) -> None:
        path = write("rows.data", b'{"a": 1}\n')
        assert [r.columns for r in read(path, data_format=DataFormat.JSONL)] == [{"a": 1}]


class TestText:
    def test_a_row_is_a_non_empty_line(self, write: Write) -> None:
        path = write("a.txt", b"one\n\n \t\r\n two \r\nthree")
        assert [(r.columns, r.line) for r in read(path)] == [
            ({"text": "one"}, 1),
            ({"text": " two "}, 4),
            ({"text": "three"}, 5),
        ]

    def test_byte_order_mark_is_passed_over(self, write: Write) -> None:
        assert columns(write("a.txt", b"\xef\xbb\xbfone\n")) == [{"text": "one"}]

    def test_only_a_line_feed_ends_a_line(self, write: Write) -> None:
        text = "a\x0bb\x0cc\x1cd\x85e\u2028f\u2029g\rh"
        assert columns(write("a.txt", f"{text}\n".encode())) == [{"text": text}]


class TestJsonl:
    def test_values_stay_as_they_are(self, write: Write) -> None:
        line = '{"text": "caf\\u00e9 \\ud83d\\ude00", "n": 1, "x": null, "deep": {"a": [1, {"b": 2}]}}'
        assert columns(write("a.jsonl", line.encode())) == [
            {"text": "café 😀", "n": 1, "x": None, "deep": {"a": [1, {"b": 2}]}}
        ]

    def test_blank_lines_count_for_the_line_number(self, write: Write) -> None:
        assert [r.line for r in read(write("a.jsonl", b'\n{"a": 1}\r\n\n  \n{"a": 2}'))] == [2, 5]

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            (b"[1, 2]", r"a\.jsonl:2: the line is a list, expected one object per line"),
            (b"3", r"a\.jsonl:2: the line is a number, expected one object"),
            (b"true", r"a\.jsonl:2: the line is a boolean, expected one object"),
            (b'"x"', r"a\.jsonl:2: the line is a text, expected one object"),
            (b'{"a": 1', r"a\.jsonl:2: not JSON at character \d+ .*expected one object per line"),
            (b"[", r"a\.jsonl:2: not JSON .*a JSON array must be written as one object per line"),
            (b'{"a": NaN}', r"a\.jsonl:2: NaN is not JSON"),
            (b'{"a": -1e999}', r"a\.jsonl:2: a number is too large to be held, and infinity is not JSON; "),
            (b'{"a": 1, "a": 2}', r"a\.jsonl:2: the key 'a' occurs twice"),
            (b'{"a": "\\ud800"}', r"a\.jsonl:2: half of a surrogate pair"),
            (b'{"a": "\\uDC00x"}', r"a\.jsonl:2: half of a surrogate pair"),
            (b'{"a": ' + b"9" * 5000 + b"}", r"a\.jsonl:2: a number of 5000 digits is too long to be read"),
            (b'{"a": ' + b"[" * 100_000 + b"}", r"a\.jsonl:2: the line is nested too deeply; "),
        ],
    )
    def test_wrong_line_is_named(self, write: Write, line: bytes, message: str) -> None:
        with pytest.raises(DataError, match=message):
            read(write("a.jsonl", b'{"a": 0}\n' + line + b'\n{"a": 0}\n'))


class TestCsv:
    def test_quoted_fields_hold_commas_quotes_and_lines(self, write: Write) -> None:
        path = write("a.csv", b'\xef\xbb\xbftext, label\r\n"a, ""b""\nc",1\r\n\r\nd,2\r\n')
        assert [(dict(r.columns), r.line) for r in read(path)] == [
            ({"text": 'a, "b"\nc', "label": "1"}, 2),
            ({"text": "d", "label": "2"}, 5),
        ]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"a,b\n1,2\n1,2,3\n", r"a\.csv:3: the row has 3 fields, expected 2"),
            (b"a,b\n1\n", r"a\.csv:2: the row has 1 fields, expected 2"),
            (b"a,b,a\n1,2,3\n", r"a\.csv:1: the header has 2 columns 'a'"),
            (b"a,,c\n1,2,3\n", r"a\.csv:1: column 2 of the header has no name"),
            (b'a,b\n1,"2\n3,4\n', r"a\.csv:2: not CSV \(unexpected end of data\)"),
            (b'a,b\n1,"2"x\n', r"a\.csv:2: not CSV .*expected after"),
            (b'a\n"' + b"x" * 200_000 + b'"\n', r"a\.csv:2: a field has more than 131072 characters"),
        ],
    )
    def test_wrong_row_is_named(self, write: Write, content: bytes, message: str) -> None:
        with pytest.raises(DataError, match=message):
            read(write("a.csv", content))


class TestTsv:
    def test_quotes_are_text(self, write: Write) -> None:
        path = write("a.tsv", b'text\tlabel\r\n"so\t1\r\n\t0\n')
        assert columns(path) == [{"text": '"so', "label": "1"}, {"text": "", "label": "0"}]

    def test_ragged_row_is_named(self, write: Write) -> None:
        with pytest.raises(DataError, match=r"a\.tsv:3: the row has 1 fields, expected 2"):
            read(write("a.tsv", b"a\tb\n1\t2\n3\n"))


class TestAnyFormat:
    @pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.tsv"])
    @pytest.mark.parametrize("content", [b"", b"\n\r\n\n", b"\xef\xbb\xbf"])
    def test_empty_file(self, write: Write, name: str, content: bytes) -> None:
        with pytest.raises(DataError, match=r"the file has no rows"):
            read(write(name, content))

    def test_header_alone_is_empty(self, write: Write) -> None:
        with pytest.raises(DataError, match=r"the file has no rows"):
            read(write("a.csv", b"a,b\n"))

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"one\ntw\xff\n", r"a\.txt:2: byte 0xff at byte 3 of the line is not UTF-8"),
            (b"one\ntw\x00o\n", r"a\.txt:2: NUL byte at byte 3"),
            ("one\n".encode("utf-16"), r"a\.txt:1: the file is UTF-16, expected UTF-8"),
        ],
    )
    def test_bytes_that_are_not_utf8(self, write: Write, content: bytes, message: str) -> None:
        with pytest.raises(DataError, match=message):
            read(write("a.txt", content))

    def test_line_limit(self, write: Write) -> None:
        limits = ReadLimits(max_line_bytes=4)
        assert len(read(write("a.txt", b"1234\n"), limits=ReadLimits(max_line_bytes=5))) == 1
        with pytest.raises(DataError, match=r"a\.txt:1: the line has more than 4 bytes"):
            read(write("a.txt", b"1234\n"), limits=limits)

    def test_row_limit(self, write: Write) -> None:
        with pytest.raises(DataError, match=r"a\.txt:3: more than 2 rows"):
            read(write("a.txt", b"1\n2\n3\n"), limits=ReadLimits(max_rows=2))

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"none\.txt: cannot read the data \(No such file"):
            read(tmp_path / "none.txt")

    def test_folder(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="cannot read the data"):
            read(tmp_path, data_format=DataFormat.TEXT)

    def test_a_pipe_is_refused_and_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "a.txt")
        with pytest.raises(DataError, match=r"a\.txt: .*no regular file\); write the rows into a file"):
            read(tmp_path / "a.txt")

    @pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.tsv"])
    def test_lines_that_end_with_carriage_returns_alone(self, write: Write, name: str) -> None:
        with pytest.raises(DataError, match=r"a\.\w+:1: the lines end with carriage returns alone"):
            read(write(name, b'{"a": 1}\r{"a": 2}\r'))

    def test_reads_no_further_than_asked(self, write: Write) -> None:
        records = read_records(write("a.jsonl", b'{"a": 1}\nnot json\n'))
        assert next(records).columns == {"a": 1}

    def test_mapping_is_applied(self, write: Write) -> None:
        path = write("a.csv", b"sentence,gold\nhello,1\n")
        mapping = ColumnMapping.parse("text=sentence,label=gold")
        assert [r.columns for r in read(path, columns=mapping)] == [{"text": "hello", "label": "1"}]

    @given(content=st.binary(max_size=200), data_format=st.sampled_from(DataFormat))
    def test_random_bytes_raise_nothing_but_data_errors(
        self, tmp_path_factory: pytest.TempPathFactory, content: bytes, data_format: DataFormat
    ) -> None:
        path = tmp_path_factory.getbasetemp() / "random.bin"
        path.write_bytes(content)
        try:
            records = read(path, data_format=data_format)
        except DataError:
            return
        assert records


class TestPublicFiles:
    @pytest.mark.parametrize(
        ("name", "rows", "names"),
        [
            ("superglue/CB/train.jsonl", 250, {"premise", "hypothesis", "label", "idx"}),
            ("superglue/BoolQ/val.jsonl", 3270, {"question", "passage", "label", "idx"}),
            ("superglue/MultiRC/val.jsonl", 83, {"idx", "version", "passage"}),
            ("glue/SST-2/dev.tsv", 872, {"sentence", "label"}),
            ("e2e_nlg/devset.csv", 4672, {"mr", "ref"}),
            ("instruction/gsm8k/test.jsonl", 1319, {"question", "answer"}),
        ],
    )
    def test_every_row_is_read(self, test_data: Path, name: str, rows: int, names: set[str]) -> None:
        records = read(test_data / "data" / name)
        assert len(records) == rows
        assert all(names <= set(record.columns) for record in records)

    def test_plain_text_has_no_empty_row(self, test_data: Path) -> None:
        path = test_data / "data/text/tinystories/tinystories_slice.txt"
        expected = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
        assert [record.columns["text"] for record in read(path)] == expected

    def test_a_json_array_is_read_to_its_end(self, test_data: Path) -> None:
        path = test_data / "data/instruction/llms_from_scratch/instruction-data.json"
        assert columns(path) == json.loads(path.read_text(encoding="utf-8"))


class TestBadRows:
    @pytest.mark.parametrize(
        ("name", "content", "bad_lines", "num_good"),
        [
            ("a.jsonl", b'{"text": "x"}\n[1]\nno\n{"text": "y"}\n', [2, 3], 2),
            ("a.csv", b"a,b\n1,2\n3\n4,5,6\n7,8\n", [3, 4], 2),
            ("a.tsv", b"a\tb\n1\n2\t3\n", [2], 1),
        ],
    )
    def test_are_passed_over_where_the_caller_collects_them(
        self, write: Write, name: str, content: bytes, bad_lines: list[int], num_good: int
    ) -> None:
        path, bad = write(name, content), list[DataError]()
        records = list(read_records(path, on_bad_row=bad.append))
        found = [int(error.message.split(":")[1]) for error in bad]
        assert (found, len(records)) == (bad_lines, num_good)

    def test_a_row_without_a_mapped_column_is_one(self, write: Write) -> None:
        path, bad = write("a.jsonl", b'{"a": 1}\n{"b": 1}\n'), list[DataError]()
        list(read_records(path, columns=ColumnMapping.parse("text=a"), on_bad_row=bad.append))
        assert [error.message.split(";")[0] for error in bad] == [
            f"{path}:2: no column 'a', which is mapped to 'text'"
        ]

    def test_a_file_of_nothing_else_is_not_called_empty(self, write: Write) -> None:
        bad: list[DataError] = []
        assert not list(read_records(write("a.jsonl", b"no\n"), on_bad_row=bad.append))
        assert len(bad) == 1
