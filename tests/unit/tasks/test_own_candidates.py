"""Candidates that differ from row to row, groups of rows, and what is learned of them."""

from collections.abc import Callable

import pytest

from splitlearn.errors import DataError
from splitlearn.spec import ChoiceTask
from splitlearn.tasks import (
    Example,
    Record,
    TextTokenizer,
    UnknownLabelsError,
    prepare,
    row_texts,
    split_holdout,
)

COPA = ChoiceTask(prompt="{q}", answers={"0": " {a}", "1": " {b}"})
RECORD = ChoiceTask(prompt="{q}", label="gold", candidates="names", candidate="{candidate} {tail}")
RowsOf = Callable[..., list[Record]]
Ids = Callable[[str], list[int]]


def examples(rows: list[Record], task: ChoiceTask, tokenizer: TextTokenizer) -> tuple[Example, ...]:
    return prepare(rows, task=task, tokenizer=tokenizer, max_tokens=50).examples


class TestAnswersAsTemplates:
    def test_each_row_has_its_own_texts(self, tokenizer: TextTokenizer, ids: Ids, rows_of: RowsOf) -> None:
        rows = rows_of(
            {"q": "x", "a": "1.", "b": "2.", "label": 1}, {"q": "y", "a": "3.", "b": "4.", "label": 0}
        )
        first, second = examples(rows, COPA, tokenizer)
        assert [row.input_ids[1:] for row in first.candidates] == [tuple(ids("x 1.")), tuple(ids("x 2."))]
        assert (first.right, second.right) == (1, 0)
        assert second.target.input_ids[1:] == tuple(ids("y 3."))

    def test_doubled_braces_are_one(self, tokenizer: TextTokenizer, ids: Ids, rows_of: RowsOf) -> None:
        task = ChoiceTask(prompt="{q}", answers={"0": "{{}}", "1": "x"})
        [example] = examples(rows_of({"q": "?", "label": 0}), task, tokenizer)
        assert example.target.input_ids[1:] == tuple(ids("?{}"))


class TestOwnCandidates:
    def test_every_text_of_the_list_is_one(self, tokenizer: TextTokenizer, ids: Ids, rows_of: RowsOf) -> None:
        rows = rows_of(
            {"q": "Who? ", "names": ["Ann", "Bob Smith", "Ann"], "gold": ["Bob Smith"], "tail": "left."}
        )
        [example] = examples(rows, RECORD, tokenizer)
        assert [row.input_ids[1:] for row in example.candidates] == [
            tuple(ids("Who? Ann left.")),
            tuple(ids("Who? Bob Smith left.")),
        ]
        assert (example.right, example.exact) == (1, (False, True))

    def test_words_shared_are_those_with_the_nearest_right_one(self, rows_of: RowsOf) -> None:
        rows = rows_of({"q": "?", "names": ["Smith", "Bob Smith"], "gold": ["Bob Smith", "Bob"], "tail": "."})
        [texts] = row_texts(rows, task=RECORD)
        assert texts.token_f1 == pytest.approx((2 / 3, 1.0))

    def test_a_right_text_that_is_no_candidate_is_counted(self, rows_of: RowsOf) -> None:
        rows = rows_of({"q": "?", "names": ["Ann"], "gold": "private", "tail": "."})
        with pytest.raises(
            UnknownLabelsError, match="not among the candidates in column 'names'; 1 of 1"
        ) as caught:
            list(row_texts(rows, task=RECORD))
        assert "private" not in caught.value.public

    @pytest.mark.parametrize(
        ("names", "says"),
        [
            ([], "a list that is empty or holds more than texts"),
            ([{"text": "Ann"}], "a list that is empty or holds more than texts"),
            ([str(n) for n in range(257)], "lists 257 texts, the limit is 256"),
        ],
    )
    def test_refuses_what_is_no_list_of_texts(self, rows_of: RowsOf, names: object, says: str) -> None:
        with pytest.raises(
            DataError, match=rf"made\.jsonl:1: column 'names' {says.replace('a list', 'holds a list')}"
        ):
            list(row_texts(rows_of({"q": "?", "names": names, "gold": "x", "tail": "."}), task=RECORD))


class TestGroups:
    TASK = ChoiceTask(prompt="{q}", answers={"0": "n", "1": "y"}, group="of")

    def test_are_held_out_together(self, tokenizer: TextTokenizer, rows_of: RowsOf) -> None:
        rows = rows_of(*({"q": f"{n}", "label": n % 2, "of": n // 4} for n in range(200)))
        split = split_holdout(examples(rows, self.TASK, tokenizer), share=0.3, seed=1, silo_name="a")
        held, trained = ({example.group for example in part} for part in (split.heldout, split.training))
        assert held
        assert not held & trained

    def test_a_row_by_itself_has_none(self, tokenizer: TextTokenizer, rows_of: RowsOf) -> None:
        [example] = examples(rows_of({"q": "x", "a": "1.", "b": "2.", "label": 1}), COPA, tokenizer)
        assert example.group == b""


class TestTokensCut:
    def test_are_counted_by_side(self, tokenizer: TextTokenizer, rows_of: RowsOf) -> None:
        rows = rows_of({"q": "abcdef", "a": "1.", "b": "234.", "label": 0})
        result = prepare(rows, task=COPA, tokenizer=tokenizer, max_tokens=8)
        assert (result.prompts_cut, result.tokens_cut_left) == (1, 4)
        assert (result.answers_cut, result.tokens_cut_right) == (0, 0)

    def test_of_candidates_the_one_counts_that_lost_most(
        self, tokenizer: TextTokenizer, rows_of: RowsOf
    ) -> None:
        rows = rows_of({"q": "a", "a": "1.", "b": "2345.", "label": 0})
        result = prepare(rows, task=COPA, tokenizer=tokenizer, max_tokens=4)
        assert (result.tokens_cut_left, result.tokens_cut_right, result.answers_cut) == (1, 3, 1)
