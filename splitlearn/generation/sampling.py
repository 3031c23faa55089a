"""Logits to tokens, at the silo. Axes: B rows, V vocabulary."""

import hashlib
import math

import torch
from torch import Tensor

from splitlearn.generation.options import Sampling

_CONTEXT = b"trunkline/sampling/v1\0"


class Chooser:
    """Chooses the next token of each row.

    Args:
        sampling: How to draw; None takes the likeliest.
        num_rows: B.
    """

    def __init__(self, sampling: Sampling | None, *, num_rows: int) -> None:
        self._sampling = sampling
        self._generators = (
            [] if sampling is None else [_generator(sampling.seed, row) for row in range(num_rows)]
        )

    def choose(self, logits_BV: Tensor) -> Tensor:
        """Return one token per row, [B] int64.

        Every row draws one random number each time, also one that is finished: what a row draws does not
        depend on the others.
        """
        if self._sampling is None:
            return logits_BV.float().argmax(dim=-1)
        probabilities_BV = filtered(logits_BV.float(), self._sampling).softmax(dim=-1).cpu()
        drawn = [
            torch.multinomial(probabilities_V, 1, generator=generator)
            for probabilities_V, generator in zip(probabilities_BV, self._generators, strict=True)
        ]
        return torch.cat(drawn).to(logits_BV.device)


def filtered(logits_BV: Tensor, sampling: Sampling) -> Tensor:
    """Return logits after temperature, ``top_k`` and ``top_p``; minus infinity where nothing is drawn.

    The likeliest token always stays.
    """
    logits_BV = logits_BV / sampling.temperature
    if sampling.top_k is not None:
        least_B1 = logits_BV.topk(min(sampling.top_k, logits_BV.shape[-1]), dim=-1).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < least_B1, -math.inf)
    if sampling.top_p is not None:
        ordered_BV, order_BV = logits_BV.sort(dim=-1, descending=True, stable=True)
        probabilities_BV = ordered_BV.softmax(dim=-1)
        # A token stays while those before it have not reached top_p.
        beyond_BV = probabilities_BV.cumsum(dim=-1) - probabilities_BV >= sampling.top_p
        beyond_BV[:, 0] = False
        logits_BV = logits_BV.masked_fill(beyond_BV.scatter(-1, order_BV, beyond_BV), -math.inf)
    return logits_BV


def _generator(seed: int, row: int) -> torch.Generator:
    digest = hashlib.sha256(_CONTEXT + f"{seed}\0{row}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
