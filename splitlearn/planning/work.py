"""How much a segment computes in one training step, and how long that takes at a known speed.

What is counted is floating-point operations of matrix products, calls of layers, logits that pass the loss,
and parameters that are moved. All else is small beside them, or goes with one of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from splitlearn.planning.activations import Widths
from splitlearn.planning.cut import Cut, Role
from splitlearn.planning.estimates import Training
from splitlearn.planning.folder import ModelFolder
from splitlearn.planning.headers import TensorInfo
from splitlearn.planning.sizes import lora_parameters, segment_sizes, tensors_by_role
from splitlearn.spec import LoraAdapter, SGDSpec

_PER_PRODUCT = 2  # operations: a multiplication and an addition
_ATTENTION_PRODUCTS = 2  # queries by keys, weights by values: each heads x head size per pair of positions
_MATRIX_AXES = 2
_EXPERTS = ".experts."
_SGD_SHARE = 0.4  # of what AdamW moves: no moments
_IN_PLACE = 1.15
"""A step's layers take so many times as long as those of the probe, which find all they need in the cache: by
``python -m bench.planner``."""
_SEGMENT_CALLS = 1
"""Calling a segment, which makes masks and positions and takes what is padded out, costs as a layer does."""
_ADAPTER_CALLS = 1.5
"""Calling a layer whose products have adapters beside them costs half as much again."""
_FORWARD_CALL = 0.5
"""Of a layer's two calls, the one forward."""
_UNDO_SHARE = 0.75  # on top: parameters and both moments are copied before every step


@dataclass(frozen=True, slots=True)
class Rate:
    """Operations per second of a layer of some width, forward and backward, without what calling it costs."""

    width: int
    flops_per_second: float


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a party computes, as measured on small layers; see ``splitlearn.training.speed``.

    Attributes:
        layer_seconds: Forward and backward of a layer with next to nothing to compute.
        rates: By growing width; at least one.
        logits_per_second: Logits through the loss, forward and backward.
        updates_per_second: Parameters whose gradients are measured and clipped, and that AdamW then moves.
        tensor_seconds: The same for a parameter tensor with next to nothing in it.
        message_seconds: What a message costs besides its bytes: made, sealed, handed from thread to thread.
    """

    layer_seconds: float
    rates: tuple[Rate, ...]
    logits_per_second: float
    updates_per_second: float
    tensor_seconds: float = 0.0
    message_seconds: float = 0.001

    def flops_per_second(self, width: int) -> float:
        """Return the rate of layers of this width: between two that were measured on a line of logarithms."""
        if width <= self.rates[0].width:
            return self.rates[0].flops_per_second
        for low, high in pairwise(self.rates):
            if width <= high.width:
                share = math.log(width / low.width) / math.log(high.width / low.width)
                return math.exp(
                    (1 - share) * math.log(low.flops_per_second) + share * math.log(high.flops_per_second)
                )
        return self.rates[-1].flops_per_second

    def times(self, factor: float) -> "Speed":
        """Return a speed at which everything but messages is so many times as fast."""
        return Speed(
            layer_seconds=self.layer_seconds / factor,
            rates=tuple(Rate(rate.width, rate.flops_per_second * factor) for rate in self.rates),
            logits_per_second=self.logits_per_second * factor,
            updates_per_second=self.updates_per_second * factor,
            tensor_seconds=self.tensor_seconds / factor,
            message_seconds=self.message_seconds,
        )


NOMINAL_SPEED = Speed(
    layer_seconds=0.002,
    rates=(Rate(64, 20e9), Rate(256, 50e9), Rate(512, 60e9)),
    logits_per_second=80e6,
    updates_per_second=300e6,
    tensor_seconds=0.00005,
)
"""One core of a server of 2026, in fp32: taken where nothing is known, and said so."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be computed.

    Attributes:
        width: Of the model, which decides the rate.
        layer_calls: Layers that are called forward and backward, a half where forward alone; and the segment.
        flops: Operations in matrix products.
        logits: That pass the loss.
        updates: Parameters that AdamW moves, or what costs as much.
        tensors: That these parameters lie in.
    """

    width: int
    layer_calls: float = 0.0
    flops: float = 0.0
    logits: float = 0.0
    updates: float = 0.0
    tensors: float = 0.0

    def seconds(self, speed: Speed) -> float:
        """Return how long it takes at a speed."""
        return (
            self.layer_calls * speed.layer_seconds
            + _IN_PLACE * self.flops / speed.flops_per_second(self.width)
            + self.logits / speed.logits_per_second
            + self.updates / speed.updates_per_second
            + self.tensors * speed.tensor_seconds
        )


def batch_work(folder: ModelFolder, cut: Cut, role: Role, training: Training) -> Work:
    """Return what one micro-batch costs a segment, forward and backward.

    Args:
        folder: The model.
        cut: Where it is cut.
        role: Which segment.
        training: How it is trained; its batch is what passes at once. Every row is taken for as long as the
            longest: what is padded is computed.
    """
    passes, calls = _passes(role, training)
    cells = training.batch.cells
    parameters = _active_parameters(folder, cut, role)
    products = passes * parameters + (_adapter_passes(folder, cut, role, training))
    attention = _ATTENTION_PRODUCTS * Widths.of(folder).attention * training.batch.row_tokens
    num_layers = len(cut.layers(role))
    scores = _score_passes(role, training) * attention * num_layers  # nothing of a score is a parameter
    head = _head(folder, training) if role is Role.TOP else 0
    return Work(
        width=folder.hidden_size,
        layer_calls=calls * (num_layers + _SEGMENT_CALLS),
        flops=_PER_PRODUCT * (products + scores + head) * cells,
        logits=_vocabulary(folder) * cells if role is Role.TOP else 0,
    )


def update_work(folder: ModelFolder, cut: Cut, role: Role, training: Training, *, undoable: bool) -> Work:
    """Return what a step's end costs a segment: norms, clipping, the optimiser.

    Args:
        folder: The model.
        cut: Where it is cut.
        role: Which segment.
        training: How it is trained.
        undoable: Whether the party keeps a copy to go back to, as silos do that are not alone.
    """
    trained = float(_trained(folder, cut, role, training))
    tensors = len(tensors_by_role(folder, cut)[role]) if trained else 0
    copies = _UNDO_SHARE if undoable and role is not Role.TRUNK else 0.0
    share = _SGD_SHARE if isinstance(training.optimizer, SGDSpec) else 1.0
    return Work(
        width=folder.hidden_size,
        updates=trained * (share + copies),
        tensors=tensors * (1 + copies),
    )


def trained_parameters(folder: ModelFolder, cut: Cut, roles: Sequence[Role], training: Training) -> int:
    """Return how many numbers these segments train."""
    return sum(_trained(folder, cut, role, training) for role in roles)


def _trained(folder: ModelFolder, cut: Cut, role: Role, training: Training) -> int:
    if not training.trains:
        return 0
    if isinstance(training.adapter, LoraAdapter):
        return _adapter_parameters(folder, cut, role, training.adapter)
    return segment_sizes(folder, cut)[role].num_parameters


def _adapter_parameters(folder: ModelFolder, cut: Cut, role: Role, adapter: LoraAdapter) -> int:
    return lora_parameters(folder, cut, adapter)[role]


def _passes(role: Role, training: Training) -> tuple[int, float]:
    """Return how often a weight is multiplied with, and how much of a layer's two calls happens.

    Forward, once more where it is recomputed; the gradient of what came in; the gradient of the weight
    itself, where it is trained.
    """
    is_full = training.trains and not isinstance(training.adapter, LoraAdapter)
    if role is Role.BOTTOM and not training.trains:
        return 1, _FORWARD_CALL
    calls = _ADAPTER_CALLS if training.trains and not is_full else 1.0
    again = int(training.recomputes)
    return (3 if is_full else 2) + again, calls * (1 + again * _FORWARD_CALL)


def _score_passes(role: Role, training: Training) -> int:
    return 1 if role is Role.BOTTOM and not training.trains else 3 + int(training.recomputes)


def _adapter_passes(folder: ModelFolder, cut: Cut, role: Role, training: Training) -> int:
    if not training.trains or not isinstance(training.adapter, LoraAdapter):
        return 0
    return (3 + int(training.recomputes)) * _adapter_parameters(folder, cut, role, training.adapter)


def _active_parameters(folder: ModelFolder, cut: Cut, role: Role) -> float:
    """Return the elements of matrices in the segment's layers that a token is multiplied with."""
    share = _share_of_experts(folder)
    return sum(
        (share if _EXPERTS in folder.parameter_of(info.name) else 1.0) * info.num_elements
        for info in tensors_by_role(folder, cut)[role]
        if _is_matrix_of_layer(folder, info)
    )


def _is_matrix_of_layer(folder: ModelFolder, info: TensorInfo) -> bool:
    is_of_layer = folder.family.layer_of(folder.parameter_of(info.name)) is not None
    return is_of_layer and len(info.shape) >= _MATRIX_AXES


def _share_of_experts(folder: ModelFolder) -> float:
    chosen, all_ = folder.config.get("num_experts_per_tok"), folder.config.get("num_experts")
    if isinstance(chosen, int) and isinstance(all_, int) and 0 < chosen <= all_:
        return chosen / all_
    return 1.0


def _head(folder: ModelFolder, training: Training) -> int:
    is_full = training.trains and not isinstance(training.adapter, LoraAdapter)
    return (3 if is_full else 2) * _vocabulary(folder) * folder.hidden_size


def _vocabulary(folder: ModelFolder) -> int:
    value = folder.config.get("vocab_size")
    return value if isinstance(value, int) and value > 0 else 0
