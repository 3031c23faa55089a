"""Nested files to rows, with the field names of their publishers."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from splitlearn.errors import DataError
from splitlearn.records import DataFormat, Layout, ReadLimits, read_records

MULTIRC = {
    "idx": 0,
    "version": 1.1,
    "passage": {
        "text": "Tom has a dog.",
        "questions": [
            {
                "question": "What has Tom?",
                "idx": 0,
                "answers": [{"text": "a dog", "idx": 0, "label": 1}, {"text": "a cat", "idx": 1, "label": 0}],
            },
            {"question": "Who has it?", "idx": 1, "answers": [{"text": "Tom", "idx": 2, "label": 1}]},
        ],
    },
}
RECORD = {
    "source": "Daily mail",
    "passage": {
        "text": "Ann met Bob.\n@highlight\nBob left",
        "entities": [{"start": 0, "end": 2}, {"start": 8, "end": 10}, {"start": 24, "end": 26}],
    },
    "qas": [
        {
            "query": "Later @placeholder was gone.",
            "answers": [{"start": 8, "end": 10, "text": "Bob"}],
            "idx": 0,
        }
    ],
    "idx": 0,
}
WSC = {
    "text": "Ann told Bob that he won.",
    "target": {"span2_index": 4, "span1_index": 2, "span1_text": "Bob", "span2_text": "he"},
    "idx": 0,
    "label": True,
}
CHAT = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "And?"},
        {"role": "assistant", "content": "So."},
    ],
    "id": 7,
}

Rows = Callable[..., list[dict[str, object]]]


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    def read(layout: Layout, *objects: object) -> list[dict[str, object]]:
        path = tmp_path / "a.jsonl"
        path.write_text("".join(json.dumps(value) + "\n" for value in objects))
        return [dict(record.columns) for record in read_records(path, layout=layout)]

    return read


class TestMultirc:
    def test_a_row_per_answer(self, rows: Rows) -> None:
        found = rows(Layout.MULTIRC, MULTIRC)
        assert [(row["question"], row["answer"], row["label"]) for row in found] == [
            ("What has Tom?", "a dog", 1),
            ("What has Tom?", "a cat", 0),
            ("Who has it?", "Tom", 1),
        ]
        assert {row["passage"] for row in found} == {"Tom has a dog."}

    def test_answers_to_one_question_are_one_group_wherever_they_stand(self, rows: Rows) -> None:
        found = rows(Layout.MULTIRC, {**MULTIRC, "idx": 3}, MULTIRC)
        groups = [row["group"] for row in found]
        assert groups[0] == groups[1] == groups[3] != groups[2]


class TestRecord:
    def test_a_row_per_query_with_the_entities_once(self, rows: Rows) -> None:
        assert rows(Layout.RECORD, RECORD) == [
            {
                "passage": "Ann met Bob.\nBob left",
                "before": "Later",
                "space": " ",
                "after": " was gone.",
                "entities": ["Ann", "Bob"],
                "answers": ["Bob"],
            }
        ]


class TestWsc:
    def test_spans_are_columns(self, rows: Rows) -> None:
        [row] = rows(Layout.WSC, WSC)
        assert (row["span1_text"], row["span2_text"], row["label"]) == ("Bob", "he", True)


class TestMessages:
    def test_a_row_per_turn_of_the_assistant(self, rows: Rows) -> None:
        first, second = rows(Layout.MESSAGES, CHAT)
        assert (first["messages"], first["answer"]) == (CHAT["messages"][:2], "Hello")  # type: ignore[index]
        assert (second["messages"], second["answer"]) == (CHAT["messages"][:4], "So.")  # type: ignore[index]
        assert (second["prompt"], second["id"]) == ("And?", 7)

    def test_turns_of_one_conversation_are_one_group(self, rows: Rows) -> None:
        groups = [row["group"] for row in rows(Layout.MESSAGES, CHAT, {"messages": CHAT["messages"][:3]})]  # type: ignore[index]
        assert groups[0] == groups[1] != groups[2]


class TestUnfit:
    @pytest.mark.parametrize(
        ("layout", "value", "says"),
        [
            (Layout.MULTIRC, {"passage": "flat"}, "'passage' is a text, expected an object"),
            (Layout.MULTIRC, {"passage": {"text": "x"}}, "'questions' of a passage is missing"),
            (Layout.RECORD, {**RECORD, "qas": [{"query": "none"}]}, "a query holds no @placeholder"),
            (
                Layout.RECORD,
                {**RECORD, "passage": {"text": "Ann", "entities": [{"start": 1, "end": 3}]}},
                "an entity runs from 1 to 3 in a passage of 3 characters",
            ),
            (Layout.WSC, {"text": "x"}, "'target' is missing"),
            (
                Layout.MESSAGES,
                {"messages": [{"role": "robot", "content": "x"}]},
                "the role 'robot' is none of",
            ),
            (Layout.MESSAGES, {"messages": [{"role": "user", "content": "x"}]}, "no message of an assistant"),
            (Layout.MESSAGES, {"messages": [{"role": "user"}]}, "'content' of a message is missing"),
        ],
    )
    def test_is_named_with_its_line(self, rows: Rows, layout: Layout, value: object, says: str) -> None:
        with pytest.raises(
            DataError, match=rf"a\.jsonl:1: {says}.*the layout '{layout}' is in docs/tasks\.md"
        ):
            rows(layout, value)

    def test_is_passed_over_where_the_caller_collects(self, tmp_path: Path) -> None:
        path, bad = tmp_path / "a.jsonl", list[DataError]()
        path.write_text(json.dumps({}) + "\n" + json.dumps(WSC) + "\n")
        assert len(list(read_records(path, layout=Layout.WSC, on_bad_row=bad.append))) == len(bad) == 1


class TestJsonArray:
    def test_rows_stand_on_their_lines(self, tmp_path: Path) -> None:
        path = tmp_path / "a.json"
        path.write_text('\n[\n  {"a": 1},\n  {"a": {"b": [2]}}\n]\n')
        found = [(record.line, dict(record.columns)) for record in read_records(path)]
        assert found == [(3, {"a": 1}), (4, {"a": {"b": [2]}})]

    def test_objects_on_lines_are_read_from_such_a_file_too(self, tmp_path: Path) -> None:
        path = tmp_path / "a.json"
        path.write_text('{"a": 1}\n{"a": 2}\n')
        assert [record.columns["a"] for record in read_records(path)] == [1, 2]

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ('[{"a": 1} {"a": 2}]', "a.json:1: expected a comma"),
            ('[{"a": 1},\n]', "a.json:2: not JSON"),
            ('[{"a": 1},\n3]', "a.json:2: the array holds a number"),
            ('[{"a": 1}', "a.json:1: expected a comma or the array's end"),
            ('[{"a": 1}] x', "1 characters follow the array's end"),
            ('[{"a": NaN}]', "NaN is not JSON"),
            ('[{"a": 1, "a": 2}]', "the key 'a' occurs twice"),
            ('["\\ud800"]', "half of a surrogate pair"),
            ("[" * 100_000, "nested too deeply"),
            ("[]", "the file has no rows"),
        ],
    )
    def test_refuses_what_is_no_array_of_objects(self, tmp_path: Path, text: str, says: str) -> None:
        path = tmp_path / "a.json"
        path.write_text(text)
        with pytest.raises(DataError, match=says):
            list(read_records(path))

    def test_is_held_whole_and_so_is_bounded(self, tmp_path: Path) -> None:
        path = tmp_path / "a.json"
        path.write_text('[\n{"a":\n1},\n{"a":\n2}]')
        with pytest.raises(DataError, match="more than 10 characters"):
            list(read_records(path, limits=ReadLimits(max_array_characters=10)))

    def test_format_may_be_stated(self, tmp_path: Path) -> None:
        path = tmp_path / "rows"
        path.write_text('[{"a": 1}]')
        assert len(list(read_records(path, data_format=DataFormat.JSON))) == 1
