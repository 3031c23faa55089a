"""Special tokens, labels and truncation, on a tokenizer of one token per byte."""

from collections.abc import Callable
from pathlib import Path

import pytest

from splitlearn.errors import DataError, ModelError
from splitlearn.spec import CausalLmTask, ChoiceTask, SftTask
from splitlearn.tasks import (
    IGNORED,
    ColumnMapping,
    Prepared,
    Record,
    Task,
    TextTokenizer,
    TokenRow,
    UnknownLabelsError,
    encode_texts,
    load_tokenizer,
    prepare,
    read_records,
)

BEGIN, END = 256, 257
SFT = SftTask(prompt="{q}", answer="{a}")
CHOICE = ChoiceTask(prompt="{q}", label="label", answers={"0": "no", "1": "yes"})

Ids = Callable[[str], list[int]]
RowsOf = Callable[..., list[Record]]


def prepared(records: list[Record], task: Task, tokenizer: TextTokenizer, max_tokens: int = 100) -> Prepared:
    return prepare(records, task=task, tokenizer=tokenizer, max_tokens=max_tokens)


def learned(row: TokenRow) -> list[int]:
    return [label for label in row.labels if label != IGNORED]


class TestCausalLm:
    def test_every_token_is_a_label(self, tokenizer: TextTokenizer, ids: Ids, rows_of: RowsOf) -> None:
        result = prepared(rows_of({"text": "cat"}), CausalLmTask(), tokenizer)
        row = result.examples[0].target
        assert row.input_ids == row.labels == (BEGIN, *ids("cat"), END)
        assert row.num_label_tokens == 4

    def test_no_special_token_where_there_is_none(
        self, bare_tokenizer: TextTokenizer, ids: Ids, rows_of: RowsOf
    ) -> None:
        result = prepared(rows_of({"text": "cat"}), CausalLmTask(), bare_tokenizer)
        assert result.examples[0].target.input_ids == tuple(ids("cat"))

    def test_long_text_is_cut_on_its_right_and_counted(
        self, tokenizer: TextTokenizer, ids: Ids, rows_of: RowsOf
    ) -> None:
        result = prepared(rows_of({"text": "catfish"}, {"text": "ca"}), CausalLmTask(), tokenizer, 4)
        assert [e.target.input_ids for e in result.examples] == [
            (BEGIN, *ids("cat")),
            (BEGIN, *ids("ca"), END),
        ]
        assert (result.rows, result.truncated, result.prompts_cut, result.answers_cut) == (2, 1, 0, 1)

    def test_row_without_label_is_dropped_and_counted(
        self, bare_tokenizer: TextTokenizer, rows_of: RowsOf
    ) -> None:
        rows = rows_of({"text": ""}, {"text": "a"}, {"text": "ab"})
        result = prepared(rows, CausalLmTask(), bare_tokenizer)
        assert (result.rows, result.dropped, len(result.examples)) == (3, 2, 1)


class TestSft:
    def test_labels_are_answer_and_end(self, tokenizer: TextTokenizer, ids: Ids, rows_of: RowsOf) -> None:
        row = prepared(rows_of({"q": "why?", "a": "so"}), SFT, tokenizer).examples[0].target
        assert row.input_ids == (BEGIN, *ids("why?"), *ids("so"), END)
        assert row.labels == (IGNORED,) * 5 + (*ids("so"), END)

    @pytest.mark.parametrize(
        ("max_tokens", "prompt", "answer", "end", "cut"),
        [
            (8, "why?", "so", True, (0, 0)),
            (7, "hy?", "so", True, (1, 0)),
            (5, "?", "so", True, (1, 0)),
            (4, "", "so", True, (1, 0)),
            (3, "", "so", False, (1, 1)),
            (2, "", "s", False, (1, 1)),
        ],
    )
    def test_truncation_keeps_the_answer(  # noqa: PLR0917 - one column per value
        self,
        tokenizer: TextTokenizer,
        ids: Ids,
        rows_of: RowsOf,
        max_tokens: int,
        prompt: str,
        answer: str,
        end: bool,  # noqa: FBT001 - a column of the table above
        cut: tuple[int, int],
    ) -> None:
        result = prepared(rows_of({"q": "why?", "a": "so"}), SFT, tokenizer, max_tokens)
        row = result.examples[0].target
        assert row.input_ids == (BEGIN, *ids(prompt), *ids(answer), *([END] if end else []))
        assert learned(row) == [*ids(answer), *([END] if end else [])]
        assert (result.prompts_cut, result.answers_cut) == cut
        assert result.truncated == (1 if any(cut) else 0)

    def test_without_begin_token_one_prompt_token_stays(
        self, bare_tokenizer: TextTokenizer, ids: Ids, rows_of: RowsOf
    ) -> None:
        row = prepared(rows_of({"q": "why?", "a": "so"}), SFT, bare_tokenizer, 2).examples[0].target
        assert row == TokenRow(tuple(ids("?s")), (IGNORED, *ids("s")))

    def test_boundary_never_merges(self, stories_tokenizer: TextTokenizer, rows_of: RowsOf) -> None:
        whole = prepared(rows_of({"q": "Once upon a", "a": "time"}), SFT, stories_tokenizer)
        parts = encode_texts(["Once upon a", "time"], tokenizer=stories_tokenizer)
        assert whole.examples[0].target.input_ids == (1, *parts[0], *parts[1], 2)

    def test_many_rows_keep_their_order(self, tokenizer: TextTokenizer, ids: Ids, rows_of: RowsOf) -> None:
        rows = rows_of(*({"q": f"q{n}", "a": str(n)} for n in range(2500)))
        result = prepared(rows, SFT, tokenizer)
        assert [learned(e.target) for e in result.examples] == [[*ids(str(n)), END] for n in range(2500)]


class TestChoice:
    def test_one_row_per_candidate(self, tokenizer: TextTokenizer, ids: Ids, rows_of: RowsOf) -> None:
        example = prepared(rows_of({"q": "ok?", "label": 1}), CHOICE, tokenizer).examples[0]
        assert [row.input_ids for row in example.candidates] == [
            (BEGIN, *ids("ok?no")),
            (BEGIN, *ids("ok?yes")),
        ]
        assert [learned(row) for row in example.candidates] == [ids("no"), ids("yes")]
        assert example.right == 1
        assert example.target is example.candidates[1]

    def test_candidates_follow_the_same_prompt(
        self, tokenizer: TextTokenizer, ids: Ids, rows_of: RowsOf
    ) -> None:
        result = prepared(rows_of({"q": "abcdef", "label": "0"}), CHOICE, tokenizer, 6)
        assert [row.input_ids for row in result.examples[0].candidates] == [
            (BEGIN, *ids("efno")),
            (BEGIN, *ids("efyes")),
        ]
        assert (result.truncated, result.prompts_cut, result.answers_cut) == (1, 1, 0)

    def test_labels_are_keys_as_json_writes_them(self, tokenizer: TextTokenizer, rows_of: RowsOf) -> None:
        task = ChoiceTask(prompt="{q}", answers={"false": "no", "true": "yes"})
        rows = rows_of({"q": "a", "label": True}, {"q": "b", "label": False}, {"q": "c", "label": "true"})
        assert [example.right for example in prepared(rows, task, tokenizer).examples] == [1, 0, 1]

    def test_unknown_labels_are_counted(self, tokenizer: TextTokenizer, rows_of: RowsOf) -> None:
        labels = ["0", "maybe", "1", "maybe", "2"]
        rows = rows_of(*({"q": "a", "label": label} for label in labels))
        message = (
            r"made\.jsonl:2: label 'maybe' in column 'label' is not among the candidates '0', '1'; "
            r"3 of 5 rows have such a label \('maybe' 2 times, '2' 1 times\)"
        )
        with pytest.raises(DataError, match=message):
            prepared(rows, CHOICE, tokenizer)

    def test_unknown_labels_are_told_to_others_by_count_alone(
        self, tokenizer: TextTokenizer, rows_of: RowsOf
    ) -> None:
        rows = rows_of({"q": "a", "label": "0"}, {"q": "b", "label": "private"})
        with pytest.raises(UnknownLabelsError) as caught:
            prepared(rows, CHOICE, tokenizer)
        assert caught.value.public == (
            "1 of 2 rows have a label in column 'label' that is not among the task's answers"
        )

    @pytest.mark.parametrize(
        "answers", [{"a": "no", "b": "not sure"}, {"a": "x", "b": "x"}, {"a": "", "b": "y"}]
    )
    def test_refuses_candidates_that_begin_one_another(
        self, tokenizer: TextTokenizer, rows_of: RowsOf, answers: dict[str, str]
    ) -> None:
        task = ChoiceTask(prompt="{q}", answers=answers)
        with pytest.raises(DataError, match="could then never score higher"):
            prepared(rows_of({"q": "a", "label": "a"}), task, tokenizer)


class TestPrepare:
    def test_refuses_less_than_two_tokens(self, tokenizer: TextTokenizer, rows_of: RowsOf) -> None:
        with pytest.raises(DataError, match="max_tokens: 1 is below 2"):
            prepared(rows_of({"text": "a"}), CausalLmTask(), tokenizer, 1)

    def test_missing_column_names_the_row(self, tokenizer: TextTokenizer, rows_of: RowsOf) -> None:
        with pytest.raises(DataError, match=r"made\.jsonl:2: no column 'a'; the row has 'q'"):
            prepared(rows_of({"q": "x", "a": "y"}, {"q": "x"}), SFT, tokenizer)

    def test_refuses_tokens_that_the_model_lacks(self, tokenizer: TextTokenizer, rows_of: RowsOf) -> None:
        rows = rows_of({"text": "zebra"})
        with pytest.raises(ModelError, match=r"the model's vocabulary ends at 31; .*from one folder"):
            prepare(rows, task=CausalLmTask(), tokenizer=tokenizer, max_tokens=9, vocab_size=32)

    def test_fingerprints_are_those_of_the_texts(self, tokenizer: TextTokenizer, rows_of: RowsOf) -> None:
        rows = rows_of(
            {"q": "a", "a": "b", "id": 1}, {"q": "a", "a": "b", "id": 2}, {"q": "ab", "a": "", "id": 3}
        )
        marks = [example.fingerprint for example in prepared(rows, SFT, tokenizer).examples]
        assert marks[0] == marks[1] != marks[2]

    def test_reprs_show_no_token(self, tokenizer: TextTokenizer, rows_of: RowsOf) -> None:
        example = prepared(rows_of({"text": "cat"}), CausalLmTask(), tokenizer).examples[0]
        assert "TokenRow(5 tokens, 4 learned)" in repr(example)
        assert str(END) not in repr(example)


class TestLoadTokenizer:
    def test_folder_without_tokenizer(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"no tokenizer\.json; save"):
            load_tokenizer(tmp_path)

    @pytest.mark.parametrize("content", ["", "{}", '{"model": {"type": "Nonsense"}}'])
    def test_malformed_file(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(ModelError, match=r"tokenizer\.json: not a tokenizer"):
            load_tokenizer(tmp_path)


class TestPublicFiles:
    @pytest.mark.parametrize(
        ("name", "columns", "task"),
        [
            (
                "superglue/CB/train.jsonl",
                None,
                ChoiceTask(
                    prompt="{premise} Is it so that {hypothesis}?",
                    answers={"entailment": "yes", "contradiction": "no", "neutral": "maybe"},
                ),
            ),
            (
                "superglue/BoolQ/dev32.jsonl",
                None,
                ChoiceTask(prompt="{passage} {question}?", answers={"false": "no", "true": "yes"}),
            ),
            (
                "glue/SST-2/dev.tsv",
                "text=sentence",
                ChoiceTask(prompt="{text}It was", answers={"0": "bad", "1": "good"}),
            ),
            ("e2e_nlg/devset.csv", None, SftTask(prompt="{mr}", answer="{ref}")),
            ("instruction/gsm8k/test.jsonl", None, SftTask(prompt="{question}", answer="{answer}")),
            ("text/tinystories/tinystories_slice.txt", None, CausalLmTask()),
        ],
    )
    def test_rows_fit_and_can_be_learned(
        self, test_data: Path, stories_tokenizer: TextTokenizer, name: str, columns: str | None, task: Task
    ) -> None:
        mapping = ColumnMapping.parse(columns) if columns else None
        records = list(read_records(test_data / "data" / name, columns=mapping))[:1000]
        result = prepare(records, task=task, tokenizer=stories_tokenizer, max_tokens=64, vocab_size=512)
        rows = [row for example in result.examples for row in example.candidates]
        assert result.rows == len(records)
        assert result.dropped == 0
        assert all(2 <= len(row.input_ids) == len(row.labels) <= 64 for row in rows)
        assert all(row.input_ids[0] == 1 and row.num_label_tokens for row in rows)
        assert max(len(row.input_ids) for row in rows) == 64
        assert result.truncated > 0
