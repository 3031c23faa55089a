"""How tokens are chosen, and when a row ends."""

import math
from dataclasses import dataclass, field

from splitlearn.generation.errors import GenerationOptionsError


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Draw each token at random, by what the model says of it.

    Filters apply in this order: temperature, ``top_k``, ``top_p``.

    Attributes:
        temperature: Divides the logits; below 1 the likeliest tokens become likelier. Above 0.
        top_k: Draw among so many likeliest tokens; None for all.
        top_p: Draw among the likeliest tokens that together reach this probability; None for all.
        seed: Of the random numbers. A row's depend on it and on the row's number in its batch alone.

    Raises:
        GenerationOptionsError: A value is out of range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise GenerationOptionsError(
                f"temperature is {self.temperature:g}; give a number above 0, or choose greedily"
            )
        if self.top_k is not None and self.top_k < 1:
            raise GenerationOptionsError(f"top_k is {self.top_k}; give 1 or more, or leave it out")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise GenerationOptionsError(f"top_p is {self.top_p:g}; give a number above 0, at most 1")
        if not 0 <= self.seed < 1 << 63:
            raise GenerationOptionsError(f"seed is {self.seed}; give 0 to {(1 << 63) - 1}")


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationOptions:
    """What to generate after each prompt.

    Attributes:
        max_new_tokens: Longest answer, in tokens.
        end_tokens: Tokens after which a row ends; the token itself belongs to the answer. Where there are
            none, every row gets ``max_new_tokens``.
        sampling: How to draw tokens; None takes the likeliest each time.

    Raises:
        GenerationOptionsError: A value is out of range.
    """

    max_new_tokens: int = 64
    end_tokens: frozenset[int] = field(default_factory=frozenset)
    sampling: Sampling | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.max_new_tokens < 1 << 20:
            raise GenerationOptionsError(
                f"max_new_tokens is {self.max_new_tokens}; give 1 to {(1 << 20) - 1}"
            )
