"""How fast this device computes, measured on small random layers: what the planner's seconds stand on.

Widths, rows and repeats are chosen so that it takes about a second on one core. In a thread that then ends,
and OpenMP's pool with it: while a process has more such threads than cores, GCC's runtime lets none of them
wait awake, and every parallel loop of a trunk would begin with waking one, a thousand times a second.
"""

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaModel

from splitlearn.planning import Rate, Speed
from splitlearn.spec import AdamWSpec
from splitlearn.training.clipping import gradient_norms, scale_gradients
from splitlearn.training.optimizer import build_optimizer

_WIDTHS = (64, 256)
_LAYERS = 2
_ROWS, _TOKENS = 4, 64
_HEAD_SIZE = 32
_INNER_PER_HIDDEN = 3
_PASSES = 3  # forward, the gradient of the input, that of the weights
_PER_PRODUCT = 2
_VOCABULARY = 2048
_PARAMETERS = (8, 1 << 19)  # tensors, and numbers of each: more than a cache holds
_TINY_PARAMETERS = (32, 8)
_WARM_UPS, _REPEATS = 1, 3
_SHORTEST_SECONDS = 0.1
"""What takes less is repeated until it takes so long in all: single calls of a millisecond scatter."""


def measure_speed(device: torch.device, *, widths: Sequence[int] = _WIDTHS) -> Speed:
    """Return how fast layers, loss and optimiser are on a device, with torch's threads as they are set.

    Leaves neither threads nor a trace in the global random generators.

    Args:
        device: Where parties of this process compute.
        widths: Of the layers, growing; the rate of wider ones is taken for that of the widest.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="speed") as passing:
        return passing.submit(_measure, device, widths).result()


def _measure(device: torch.device, widths: Sequence[int]) -> Speed:
    # The global generator is a job's business: what is drawn here must not move it.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        layer_seconds = _layer_seconds(widths[0], device, rows=1, tokens=1) / _LAYERS
        rates = tuple(_rate(width, layer_seconds, device) for width in widths)
        return Speed(
            layer_seconds=layer_seconds,
            rates=rates,
            logits_per_second=_logits_per_second(device),
            updates_per_second=math.prod(_PARAMETERS) / _update_seconds(device, *_PARAMETERS),
            tensor_seconds=_update_seconds(device, *_TINY_PARAMETERS) / _TINY_PARAMETERS[0],
        )


def _rate(width: int, layer_seconds: float, device: torch.device) -> Rate:
    seconds = _layer_seconds(width, device, rows=_ROWS, tokens=_TOKENS)
    computing = max(seconds - _LAYERS * layer_seconds, seconds / 10)  # what calls cost is told apart
    matrices = width * width * (4 + 3 * _INNER_PER_HIDDEN)
    products = _LAYERS * (matrices + 2 * width * _TOKENS) * _ROWS * _TOKENS
    return Rate(width=width, flops_per_second=_PASSES * _PER_PRODUCT * products / computing)


def _layer_seconds(width: int, device: torch.device, *, rows: int, tokens: int) -> float:
    """Return how long forward and backward of all layers take."""
    config = LlamaConfig(
        vocab_size=1,
        hidden_size=width,
        intermediate_size=_INNER_PER_HIDDEN * width,
        num_hidden_layers=_LAYERS,
        num_attention_heads=width // _HEAD_SIZE,
        max_position_embeddings=_TOKENS,
        bos_token_id=None,
        eos_token_id=None,
        dtype="float32",
    )
    model: Any = LlamaModel(config).train().to(device)
    hidden_BTD = torch.zeros(rows, tokens, width, device=device, requires_grad=True)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        output_BTD = model(inputs_embeds=hidden_BTD, use_cache=False).last_hidden_state
        torch.autograd.backward(output_BTD, torch.zeros_like(output_BTD))

    return _seconds(step, device)


def _logits_per_second(device: torch.device) -> float:
    rows = _ROWS * _TOKENS
    logits_NV = torch.zeros(rows, _VOCABULARY, device=device, requires_grad=True)
    labels_N = torch.zeros(rows, dtype=torch.long, device=device)

    def step() -> None:
        logits_NV.grad = None
        functional.cross_entropy(logits_NV, labels_N, reduction="sum").backward()  # type: ignore[no-untyped-call]

    return rows * _VOCABULARY / _seconds(step, device)


def _update_seconds(device: torch.device, number: int, size: int) -> float:
    """Return how long norms, clipping and AdamW take with so many tensors of so many numbers."""
    parameters = [nn.Parameter(torch.zeros(size, device=device)) for _ in range(number)]
    optimizer = build_optimizer(parameters, AdamWSpec())

    def step() -> None:
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        gradient_norms(parameters)
        scale_gradients(parameters, 0.5)
        optimizer.step()

    return _seconds(step, device)


def _seconds(step: Callable[[], None], device: torch.device) -> float:
    """Return the shortest time that a step took: others on the machine make it longer, never shorter."""
    for _ in range(_WARM_UPS):
        step()
    taken: list[float] = []
    while len(taken) < _REPEATS or sum(taken) < _SHORTEST_SECONDS:
        taken.append(_timed(step, device))
    return min(taken)


def _timed(step: Callable[[], None], device: torch.device) -> float:
    _wait_for(device)
    started = time.perf_counter()
    step()
    _wait_for(device)
    return time.perf_counter() - started


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
