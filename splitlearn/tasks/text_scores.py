"""How near a text is to the text that was wanted: exact match, words shared, ROUGE, BLEU. Torch-free.

The same numbers as the libraries that papers use, without what these bring with them; the tests compare:
ROUGE as ``rouge_score`` without a stemmer (Lin 2004), BLEU as ``sacrebleu`` by default (Post 2018, tokenizer
13a, exponential smoothing), exact match and words shared as the evaluations of SQuAD and ReCoRD.
"""

import math
import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NO_WORD = re.compile(r"[^a-z0-9]+")
_MAX_ORDER = 4

_13A = (
    (re.compile(r"([\{-\~\[-\` -\&\(-\+\:-\@\/])"), r" \1 "),
    (re.compile(r"([^0-9])([\.,])"), r"\1 \2 "),
    (re.compile(r"([\.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)
"""Splits punctuation off, as mteval-v13a.pl does: the order counts."""

_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))


@dataclass(frozen=True, slots=True)
class Overlap:
    """How much two texts share.

    Attributes:
        precision: Share of what was written that was wanted.
        recall: Share of what was wanted that was written.
    """

    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """Harmonic mean; 0 where both are."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


@dataclass(frozen=True, slots=True)
class Rouge:
    """ROUGE of one text or, averaged, of several."""

    rouge_1: float
    rouge_2: float
    rouge_l: float


def normalised(text: str) -> str:
    """Return a text in lower case, without punctuation, articles and superfluous white space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(text: str, wanted: str) -> bool:
    """Return whether two texts are the same but for case, punctuation, articles and white space."""
    return normalised(text) == normalised(wanted)


def token_f1(text: str, wanted: str) -> float:
    """Return F1 of the words that two texts share, normalised."""
    words, wanted_words = normalised(text).split(), normalised(wanted).split()
    shared = (Counter(words) & Counter(wanted_words)).total()
    return _overlap(shared, len(words), len(wanted_words)).f1


def rouge(text: str, wanted: str) -> Rouge:
    """Return F1 of ROUGE-1, ROUGE-2 and ROUGE-L of one text."""
    words, wanted_words = _rouge_words(text), _rouge_words(wanted)
    longest = _longest_common(words, wanted_words)
    return Rouge(
        rouge_1=_rouge_n(words, wanted_words, order=1),
        rouge_2=_rouge_n(words, wanted_words, order=2),
        rouge_l=_overlap(longest, len(words), len(wanted_words)).f1,
    )


def mean_rouge(texts: Sequence[str], wanted: Sequence[str]) -> Rouge:
    """Return the mean over texts, each with the one that was wanted; at least one."""
    scores = [rouge(text, one) for text, one in zip(texts, wanted, strict=True)]
    assert scores, "nothing to take the mean of"
    return Rouge(
        rouge_1=math.fsum(score.rouge_1 for score in scores) / len(scores),
        rouge_2=math.fsum(score.rouge_2 for score in scores) / len(scores),
        rouge_l=math.fsum(score.rouge_l for score in scores) / len(scores),
    )


def bleu_4(texts: Sequence[str], wanted: Sequence[str]) -> float:
    """Return BLEU-4 of a corpus, in [0, 1]; one wanted text for each.

    An order of n-grams without a match counts as half of one, the next as a quarter and so on (smoothing
    method 3 of Chen and Cherry 2014).
    """
    matched, written = [0] * _MAX_ORDER, [0] * _MAX_ORDER
    length = wanted_length = 0
    for text, one in zip(texts, wanted, strict=True):
        words, wanted_words = _bleu_words(text), _bleu_words(one)
        length, wanted_length = length + len(words), wanted_length + len(wanted_words)
        for order in range(1, _MAX_ORDER + 1):
            grams = _grams(words, order)
            matched[order - 1] += (grams & _grams(wanted_words, order)).total()
            written[order - 1] += grams.total()
    if not matched[0] or not all(written):
        return 0.0  # no word is right, or no text is long enough for the highest order
    logarithms, smoothing = 0.0, 1.0
    for right, count in zip(matched, written, strict=True):
        if right == 0:
            smoothing *= 2
            logarithms += math.log(1 / (smoothing * count))
        else:
            logarithms += math.log(right / count)
    brevity = math.exp(1 - wanted_length / length) if length < wanted_length else 1.0
    return brevity * math.exp(logarithms / _MAX_ORDER)


def _rouge_words(text: str) -> list[str]:
    return _NO_WORD.sub(" ", text.lower()).split()


def _rouge_n(words: list[str], wanted: list[str], *, order: int) -> float:
    grams, wanted_grams = _grams(words, order), _grams(wanted, order)
    shared = (grams & wanted_grams).total()
    return _overlap(shared, grams.total(), wanted_grams.total()).f1


def _grams(words: list[str], order: int) -> "Counter[tuple[str, ...]]":
    return Counter(tuple(words[at : at + order]) for at in range(len(words) - order + 1))


def _longest_common(left: list[str], right: list[str]) -> int:
    """Return the length of the longest common subsequence, in one row of the table."""
    lengths = [0] * (len(right) + 1)
    for word in left:
        diagonal = 0
        for place, other in enumerate(right, 1):
            diagonal, above = lengths[place], diagonal
            lengths[place] = above + 1 if word == other else max(diagonal, lengths[place - 1])
    return lengths[-1]


def _overlap(shared: int, written: int, wanted: int) -> Overlap:
    return Overlap(shared / written if written else 0.0, shared / wanted if wanted else 0.0)


def _bleu_words(text: str) -> list[str]:
    text = text.rstrip().replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, sign in _ENTITIES:
        text = text.replace(entity, sign)
    text = f" {text} "
    for pattern, replacement in _13A:
        text = pattern.sub(replacement, text)
    return text.split()
