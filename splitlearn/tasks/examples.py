"""Texts to token rows: special tokens, labels, truncation."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from splitlearn.errors import DataError
from splitlearn.records import Record
from splitlearn.spec import CausalLmTask, ChoiceTask, SftTask, SummariseTask
from splitlearn.tasks.chat import chat_texts, refuse_without_chat
from splitlearn.tasks.rows import IGNORED, Example, TokenRow
from splitlearn.tasks.template import Template
from splitlearn.tasks.texts import RowTexts, Task, are_fixed, row_texts
from splitlearn.tasks.tokenizing import TextTokenizer, encode_texts

MIN_TOKENS = 2  # one token to read and one to predict
_NO_ROW = Record({}, "", 0)
_ROWS_AT_A_TIME = 1024  # enough to keep the tokenizer busy, little enough to hold


@dataclass(frozen=True)
class Prepared:
    """All examples of a data set, and what was lost on the way.

    Attributes:
        examples: In the order of the data; rows that were dropped are missing.
        rows: Rows read.
        prompts_cut: Rows whose prompt lost tokens on its left.
        answers_cut: Rows of which an answer, or the whole text, lost tokens on its right.
        truncated: Rows that lost tokens in any way.
        dropped: Rows that had no token to learn.
        tokens_cut_left: Tokens that prompts lost on their left.
        tokens_cut_right: Tokens that answers or whole texts lost on their right; of several candidates, by
            the one that lost most.
    """

    examples: tuple[Example, ...]
    rows: int
    prompts_cut: int
    answers_cut: int
    truncated: int
    dropped: int
    tokens_cut_left: int = 0
    tokens_cut_right: int = 0


def prepare(
    records: Iterable[Record],
    *,
    task: Task,
    tokenizer: TextTokenizer,
    max_tokens: int,
    vocab_size: int | None = None,
) -> Prepared:
    """Tokenise every row of a data set for a task.

    ``causal-lm``: begin token, text, end token (each where the tokenizer has one); every token is a label;
    a text that is too long is cut on its right. ``sft``, ``summarise``: begin token, prompt, answer, end
    token; answer and end token are labels; where a chat template writes them, it writes begin and end too.
    ``choice``: begin token, prompt, candidate; the candidate's tokens are labels, and there is no end token,
    so that a candidate's score is that of its own words.

    A prompt that leaves no room for its answer is cut on its left, the begin token stays; an answer that
    does not fit by itself is cut on its right. Every candidate of a row follows the same prompt tokens.
    Prompt and answer are tokenised apart and never merge.

    Args:
        records: The rows; consumed once, in order.
        task: What to make of them.
        tokenizer: The model's tokenizer.
        max_tokens: Longest row in tokens, special tokens included; at least 2.
        vocab_size: Rows of the model's embedding, where known; a greater token id is refused.

    Raises:
        DataError: A row is malformed, a column is missing, a label is not among the candidates, two
            candidates cannot be told apart, or ``max_tokens`` is too small.
        ModelError: Tokenizer and ``vocab_size`` do not belong together.
    """
    if max_tokens < MIN_TOKENS:
        raise DataError(f"max_tokens: {max_tokens} is below {MIN_TOKENS}, one token to read and one to learn")
    fitter = _Fitter(tokenizer=tokenizer, task=task, max_tokens=max_tokens, vocab_size=vocab_size)
    texts = row_texts(records, task=task)
    if _is_chat(task):
        refuse_without_chat(tokenizer)
        texts = (_in_chat(row, tokenizer) for row in texts)
    while chunk := list(islice(texts, _ROWS_AT_A_TIME)):
        fitter.add(chunk)
    return fitter.finish()


@dataclass
class _Fitter:
    tokenizer: TextTokenizer
    task: Task
    max_tokens: int
    vocab_size: int | None
    examples: list[Example] = field(default_factory=list)
    rows: int = 0
    prompts_cut: int = 0
    answers_cut: int = 0
    truncated: int = 0
    tokens_cut_left: int = 0
    tokens_cut_right: int = 0

    def __post_init__(self) -> None:
        is_chat = _is_chat(self.task)
        has_end = not (is_chat or isinstance(self.task, ChoiceTask))
        self._begin = [] if is_chat else _listed(self.tokenizer.bos_token_id)
        self._end = _listed(self.tokenizer.eos_token_id) if has_end else []
        self._candidates: list[list[int]] = []
        if isinstance(self.task, ChoiceTask) and self.task.answers and are_fixed(self.task):
            # As they are written out: a doubled brace is one.
            answers = [Template.parse(answer).render(_NO_ROW) for answer in self.task.answers.values()]
            self._candidates = self._encode(answers)
            _refuse_prefixes(answers, self._candidates)

    def add(self, chunk: Sequence[RowTexts]) -> None:
        prompts = self._prompts(chunk)
        for texts, prompt, answers in zip(chunk, prompts, self._answers(chunk), strict=True):
            self.rows += 1
            candidates = self._candidate_rows(prompt, answers)
            if all(row.num_label_tokens for row in candidates):
                example = Example(
                    candidates,
                    texts.right,
                    texts.fingerprint,
                    group=texts.group_digest,
                    exact=texts.exact,
                    token_f1=texts.token_f1,
                )
                self.examples.append(example)

    def finish(self) -> Prepared:
        return Prepared(
            examples=tuple(self.examples),
            rows=self.rows,
            prompts_cut=self.prompts_cut,
            answers_cut=self.answers_cut,
            truncated=self.truncated,
            dropped=self.rows - len(self.examples),
            tokens_cut_left=self.tokens_cut_left,
            tokens_cut_right=self.tokens_cut_right,
        )

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        return encode_texts(texts, tokenizer=self.tokenizer, vocab_size=self.vocab_size)

    def _prompts(self, chunk: Sequence[RowTexts]) -> list[list[int]]:
        prompts = [texts.prompt for texts in chunk if texts.prompt is not None]
        return self._encode(prompts) if prompts else [[] for _ in chunk]

    def _answers(self, chunk: Sequence[RowTexts]) -> Iterator[list[list[int]]]:
        if self._candidates:
            return iter([self._candidates] * len(chunk))
        encoded = iter(self._encode([answer for texts in chunk for answer in texts.answers]))
        return ([ids + self._end for ids in islice(encoded, len(texts.answers))] for texts in chunk)

    def _candidate_rows(self, prompt: list[int], answers: list[list[int]]) -> tuple[TokenRow, ...]:
        context = self._begin + self._fitting_prompt(prompt, longest=max(map(len, answers)))
        room = self.max_tokens - len(context)
        cut_left = len(self._begin) + len(prompt) - len(context)
        cut_right = max(max(map(len, answers)) - room, 0)
        self.tokens_cut_left += cut_left
        self.tokens_cut_right += cut_right
        self.prompts_cut += cut_left > 0
        self.answers_cut += cut_right > 0
        self.truncated += cut_left > 0 or cut_right > 0
        learns_context = isinstance(self.task, CausalLmTask)
        return tuple(_row(context, answer[:room], learns_context=learns_context) for answer in answers)

    def _fitting_prompt(self, prompt: list[int], *, longest: int) -> list[int]:
        # Nothing predicts the first token of a row: without a begin token, one of the prompt stays.
        floor = 0 if self._begin else 1
        room = max(self.max_tokens - len(self._begin) - longest, floor)
        return prompt[max(len(prompt) - room, 0) :]


def _is_chat(task: Task) -> bool:
    return isinstance(task, SftTask | SummariseTask) and task.chat is not None


def _in_chat(texts: RowTexts, tokenizer: TextTokenizer) -> RowTexts:
    prompt, answer = chat_texts(texts.messages, texts.answers[0], tokenizer=tokenizer)
    return replace(texts, prompt=prompt, answers=(answer,))


def _listed(token_id: int | None) -> list[int]:
    return [] if token_id is None else [token_id]


def _row(context: list[int], answer: list[int], *, learns_context: bool) -> TokenRow:
    unlearned = context if learns_context else [IGNORED] * len(context)
    return TokenRow(tuple(context + answer), tuple(unlearned + answer))


def _refuse_prefixes(answers: list[str], encoded: list[list[int]]) -> None:
    for short, short_ids in zip(answers, encoded, strict=True):
        for long, long_ids in zip(answers, encoded, strict=True):
            if short_ids is not long_ids and long_ids[: len(short_ids)] == short_ids:
                raise DataError(
                    f"answers: the tokens of candidate {short!r} begin candidate {long!r}, which could then "
                    "never score higher; reword one, or end both with a full stop"
                )
