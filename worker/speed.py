"""How fast this device takes a small trunk forward and backward, as a number to compare workers by."""

import time
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

_HIDDEN, _LAYERS, _ROWS, _TOKENS = 256, 2, 4, 64
_WARM_UPS, _STEPS = 1, 3


def measure_trunk_tokens_per_second(device: torch.device) -> float:
    """Return tokens per second of forward and backward through two layers of width 256.

    In a thread that then ends, and OpenMP's pool with it: while the process has more such threads than
    cores, GCC's runtime lets none of them wait awake, and every parallel loop of the trunk would begin
    with waking one, a thousand times a second.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="speed") as passing:
        return passing.submit(_measure, device).result()


def _measure(device: torch.device) -> float:
    # The global generator is a job's business: what is drawn here must not move it.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        layer = nn.TransformerEncoderLayer(_HIDDEN, nhead=4, dim_feedforward=4 * _HIDDEN, batch_first=True)
        trunk = nn.TransformerEncoder(layer, _LAYERS, enable_nested_tensor=False).to(device)
        hidden_BTD = torch.zeros(_ROWS, _TOKENS, _HIDDEN, device=device)
        for _ in range(_WARM_UPS):
            _step(trunk, hidden_BTD)
        started = time.perf_counter()
        for _ in range(_STEPS):
            _step(trunk, hidden_BTD)
        return _STEPS * _ROWS * _TOKENS / (time.perf_counter() - started)


def _step(trunk: nn.Module, hidden_BTD: torch.Tensor) -> None:
    loss = trunk(hidden_BTD).sum()
    loss.backward()
    float(loss.detach())  # waits for the device
