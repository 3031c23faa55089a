"""Ours against the libraries that papers use."""

import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from splitlearn.tasks import bleu_4, exact_match, mean_rouge, rouge, token_f1
from splitlearn.tasks.text_scores import normalised

WORDS = [
    "the",
    "a",
    "cat",
    "sat",
    "mat,",
    "The-dog.",
    "3.5",
    "1,000",
    "don't",
    '"quoted"',
    "&amp;",
    "x-1",
    "naïve",
]
SENTENCES = st.lists(st.sampled_from(WORDS), max_size=15).map(" ".join)
TEXTS = SENTENCES | st.text(max_size=40)
CORPORA = st.lists(st.tuples(TEXTS, TEXTS.filter(str.strip)), min_size=1, max_size=4)
SCORER = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"])


class TestRouge:
    @given(TEXTS, TEXTS)
    def test_is_that_of_the_library(self, text: str, wanted: str) -> None:
        theirs = SCORER.score(wanted, text)
        ours = rouge(text, wanted)
        assert ours.rouge_1 == pytest.approx(theirs["rouge1"].fmeasure, abs=1e-12)
        assert ours.rouge_2 == pytest.approx(theirs["rouge2"].fmeasure, abs=1e-12)
        assert ours.rouge_l == pytest.approx(theirs["rougeL"].fmeasure, abs=1e-12)

    def test_order_counts_for_the_longest_sequence_alone(self) -> None:
        found = rouge("cat the", "the cat")
        assert (found.rouge_1, found.rouge_2, found.rouge_l) == (1.0, 0.0, 0.5)

    def test_of_several_is_their_mean(self) -> None:
        assert mean_rouge(["a b", "c"], ["a b", "d"]).rouge_1 == 0.5


class TestBleu:
    @given(CORPORA)
    def test_is_that_of_the_library(self, corpus: list[tuple[str, str]]) -> None:
        texts, wanted = [text for text, _ in corpus], [one for _, one in corpus]
        theirs = sacrebleu.corpus_bleu(texts, [wanted]).score / 100
        assert bleu_4(texts, wanted) == pytest.approx(theirs, abs=1e-9)

    def test_what_is_equal_scores_one(self) -> None:
        assert bleu_4(["the cat sat on a mat ."], ["the cat sat on a mat ."]) == pytest.approx(1)


class TestWords:
    def test_case_articles_and_punctuation_do_not_count(self) -> None:
        assert normalised("The U.S.  army's an...") == "us armys"
        assert exact_match("The United States.", "united states")

    @pytest.mark.parametrize(
        ("text", "wanted", "f1"),
        [
            ("Bob Smith", "Smith", 2 / 3),
            ("Bob", "Ann", 0.0),
            ("", "Ann", 0.0),
            ("a b b", "b b c", 1.0 * 4 / 5),
        ],
    )
    def test_shared_words(self, text: str, wanted: str, f1: float) -> None:
        assert token_f1(text, wanted) == pytest.approx(f1)
