"""One batch of prompts at the silo, token by token, without I/O.

Axes: B rows, T padded length, N tokens without pads, D hidden size, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from splitlearn.generation.errors import PromptError
from splitlearn.generation.options import GenerationOptions
from splitlearn.generation.sampling import Chooser
from splitlearn.partition import BottomDecoder, Segment, SiloBlocks, TopDecoder
from splitlearn.training.evaluation import evaluating
from splitlearn.training.precision import Precision, computing_in

_FILLER = 0  # any token will do: nothing valid attends to a pad or to a row that is finished


@dataclass(frozen=True, slots=True)
class Chosen:
    """The tokens of one step.

    Attributes:
        tokens: By row; None of rows that had ended before.
        ended: Rows that end with this token: at an end token, or at ``max_new_tokens``.
    """

    tokens: tuple[int | None, ...]
    ended: tuple[int, ...]


class SiloDecoder:
    """Holds the silo's caches of one batch and chooses its tokens.

    Call :meth:`prefill`; then :meth:`choose` with what the trunk returned and :meth:`decode`, in turn, until
    no row goes on. Not safe to call from several threads at once.

    Args:
        blocks: The silo's bottom and top.
        prompts: Token ids of each prompt.
        options: What to generate.
        precision: Of the job.

    Raises:
        PromptError: There is no prompt, one is empty, holds no token of the model, or is longer than the
            model's positions allow.
    """

    def __init__(
        self,
        blocks: SiloBlocks,
        prompts: Sequence[Sequence[int]],
        options: GenerationOptions,
        *,
        precision: Precision = "fp32",
    ) -> None:
        self._blocks, self._options, self._precision = blocks, options, precision
        self.lengths = tuple(map(len, prompts))
        self.capacity = max(self.lengths, default=0) + options.max_new_tokens
        _refuse_unfit(blocks, prompts, capacity=self.capacity)
        self._device = next(blocks.top.parameters()).device
        self._prompts = prompts
        self._bottom = BottomDecoder(blocks.bottom, self.lengths)
        self._top = TopDecoder(blocks.top, self.lengths)
        self._chooser = Chooser(options.sampling, num_rows=len(prompts))
        self._tokens_B = torch.full((len(prompts),), _FILLER, dtype=torch.int64, device=self._device)
        self._num_new = 0
        self.rows: tuple[int, ...] = tuple(range(len(prompts)))
        """Rows that go on."""

    @property
    def positions(self) -> tuple[int, ...]:
        """Where the last chosen token of each row that goes on stands in its row, from 0."""
        return tuple(self.lengths[row] + self._num_new - 1 for row in self.rows)

    def prefill(self) -> Tensor:
        """Return the prompts' packed activations, fp32 [N, D]."""
        width = max(self.lengths)
        padded = [[_FILLER] * (width - len(prompt)) + list(prompt) for prompt in self._prompts]
        with self._computing(self._blocks.bottom):
            ids_BT = torch.tensor(padded, dtype=torch.int64, device=self._device)
            return self._bottom.prefill(ids_BT).float()

    def decode(self) -> Tensor:
        """Return the activations of the chosen tokens of the rows that go on, fp32 [N, D]."""
        with self._computing(self._blocks.bottom):
            return self._bottom.decode(self._tokens_B, self.rows).float()

    def choose(self, hidden_ND: Tensor) -> Chosen:
        """Choose each row's next token from what the trunk returned.

        Args:
            hidden_ND: Of the prompts at first, then of the rows that went on.

        Raises:
            ProtocolError: The tensor's shape is not that: the trunk's fault.
        """
        hidden_ND = hidden_ND.to(self._device)
        with self._computing(self._blocks.top):
            logits_BV = (
                self._top.decode(hidden_ND, self.rows) if self._num_new else self._top.prefill(hidden_ND)
            )
        self._tokens_B = self._chooser.choose(logits_BV)
        self._num_new += 1
        return self._note(self._tokens_B.tolist())

    @contextmanager
    def _computing(self, segment: Segment) -> Iterator[None]:
        with evaluating(segment), computing_in(self._precision, self._device):
            yield

    def _note(self, tokens: list[int]) -> Chosen:
        is_last = self._num_new == self._options.max_new_tokens
        ended = tuple(row for row in self.rows if is_last or tokens[row] in self._options.end_tokens)
        going = set(self.rows)
        self.rows = tuple(row for row in self.rows if row not in ended)
        return Chosen(tuple(token if row in going else None for row, token in enumerate(tokens)), ended)


def _refuse_unfit(blocks: SiloBlocks, prompts: Sequence[Sequence[int]], *, capacity: int) -> None:
    if not prompts:
        raise PromptError("there is no prompt; give at least one")
    vocab_size = blocks.top.origin.vocab_size
    for index, prompt in enumerate(prompts):
        if not prompt:
            raise PromptError(f"prompt {index + 1} has no token; write at least a word")
        wrong = next((token for token in prompt if not 0 <= token < vocab_size), None)
        if wrong is not None:
            raise PromptError(
                f"prompt {index + 1} holds token {wrong}, the model's vocabulary ends at {vocab_size - 1}; "
                "take tokenizer and model from one folder"
            )
    longest = _longest_row(blocks)
    if longest is not None and capacity > longest:
        raise PromptError(
            f"the longest prompt and its answer may come to {capacity} tokens, the model has positions for "
            f"{longest}; shorten the prompt or lower max_new_tokens"
        )


def _longest_row(blocks: SiloBlocks) -> int | None:
    """Return how many positions the model has learned; None where it computes them."""
    if blocks.bottom.origin.family.positions is None:
        return None
    return int(blocks.bottom.base.config.max_position_embeddings)
