"""Estimates before a job: bytes on the wire per token, and memory per segment."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from splitlearn.planning.activations import kept_by_layer, used_by_backward
from splitlearn.planning.caches import cache_bytes, cached_tokens
from splitlearn.planning.cut import Cut, Role
from splitlearn.planning.folder import ModelFolder
from splitlearn.planning.placement import Burden, DeviceMemory, LayerRange, place_layers
from splitlearn.planning.sizes import layer_sizes, lora_parameters, lora_parameters_of_layers, segment_sizes
from splitlearn.spec import AdamWSpec, FullAdapter, JobSpec, LoraAdapter, SGDSpec

CodecName = Literal["fp32", "bf16", "fp16", "int8"]
_ELEMENT_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}
_INT8_SCALE_BYTES = 1  # one power-of-two scale per token
_ENDS = 4  # of a segment: what comes in, what goes out, and their gradients
_LOGITS_KEPT = 3  # the logits, their log-softmax, their gradient
_HEAP_SHARE = 1.2
"""Measured (``python -m bench.party_memory``): on a processor what a forward computes and lets go of leaves
holes in the heap between what is kept, so nearly all of it counts, also where an adapter keeps little."""
_FLOAT32_BYTES = 4
_HALF_BYTES = 2


def wire_bytes_per_token(hidden_size: int, codec: CodecName, *, bottom_trains: bool) -> int:
    """Return the tensor bytes that cross the cut, both directions together, per valid token and step.

    Activations, hidden states and the gradient of the hidden states always cross; the gradient of the
    activations only where the bottom trains. Envelopes and headers come on top: under 1 % of a batch.

    Args:
        hidden_size: D of the model.
        codec: How tensors are encoded.
        bottom_trains: Whether the silo's bottom is trained.
    """
    scale = _INT8_SCALE_BYTES if codec == "int8" else 0
    crossings = 4 if bottom_trains else 3
    return crossings * (hidden_size * _ELEMENT_BYTES[codec] + scale)


@dataclass(frozen=True, slots=True)
class Batch:
    """What passes a segment at once.

    Attributes:
        rows: Of all silos that are batched into one step.
        row_tokens: The padded length.
    """

    rows: int
    row_tokens: int

    @property
    def cells(self) -> int:
        """Rows x padded length."""
        return self.rows * self.row_tokens


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that one segment needs while it trains: an estimate, without the program and its libraries.

    Attributes:
        weights: Parameters, with the adapter's.
        gradients: Of what is trained.
        optimizer: Its state.
        activations: Kept for the backward pass, and used by it.
        logits: Of the head, with what the loss keeps of them.
        caches: Keys and values, at an evaluation that generates texts; nothing is taken back then.
        best: A copy of what is trained, as it was after the best round.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int = 0
    caches: int = 0
    best: int = 0

    @property
    def lasting(self) -> int:
        """What is there between two steps, too: known, not estimated."""
        return self.weights + self.gradients + self.optimizer + self.best

    @property
    def total(self) -> int:
        """All of it."""
        return self.lasting + max(self.activations + self.logits, self.caches)


@dataclass(frozen=True, slots=True)
class Training:
    """How a segment is trained, as far as memory depends on it.

    Attributes:
        adapter: What is trained.
        optimizer: Whose state is kept, in float32.
        batch: What is in flight at once.
        trains: Whether this segment trains at all (a silo's blocks may be frozen).
        element_bytes: Of a parameter in memory.
        on_heap: Whether it lies in a process's own memory, on a processor; devices' allocators pool by size.
        recomputes: Whether a layer keeps its input alone, and the rest is computed again in its backward.
        casts: Whether the forward makes copies of the weights in half precision, kept for the backward.
            The activations are counted as if all were fp32: those that cross layers are.
        cached_tokens: Cells whose keys and values an evaluation keeps that generates texts.
        is_trunk: Whether it is the trunk, which keeps no more of them than its limit.
        keeps_best: Whether the best round is kept: in the process's own memory, whatever the device.
    """

    adapter: FullAdapter | LoraAdapter
    optimizer: AdamWSpec | SGDSpec
    batch: Batch
    trains: bool = True
    element_bytes: int = _FLOAT32_BYTES
    on_heap: bool = True
    recomputes: bool = False
    casts: bool = False
    cached_tokens: int = 0
    is_trunk: bool = False
    keeps_best: bool = False

    @classmethod
    def of(
        cls,
        spec: JobSpec,
        role: Role,
        *,
        batch_size: int | None = None,
        on_heap: bool = True,
        num_silos: int | None = None,
        row_tokens: int | None = None,
    ) -> "Training":
        """Return how a job trains a segment.

        Args:
            spec: The job.
            role: Which segment.
            batch_size: Rows of each silo; None for the job's own.
            on_heap: See the attribute.
            num_silos: Whose rows a trunk has in flight at once; None for as many as the schedule says.
            row_tokens: Of each row; None for ``max_tokens``, the most that there can be.
        """
        is_trunk = role is Role.TRUNK
        if num_silos is None:
            num_silos = 1 if spec.takes_turns else max(map(len, spec.shares))
        together = num_silos if is_trunk else 1
        return cls(
            adapter=spec.adapter,
            optimizer=spec.optimizer,
            batch=Batch((batch_size or spec.batch_size) * together, row_tokens or spec.max_tokens),
            trains=is_trunk or spec.silo_blocks != "frozen",
            on_heap=on_heap,
            recomputes=spec.gradient_checkpointing,
            casts=spec.precision != "fp32",
            cached_tokens=cached_tokens(spec),
            is_trunk=is_trunk,
            keeps_best=spec.evaluation.keep_best,
        )

    def lasting(self, *, held: int, added: int) -> Memory:
        """Return what so many parameters need, those that an adapter adds told apart."""
        is_adapted = isinstance(self.adapter, LoraAdapter)
        trained = (added if is_adapted else held) if self.trains else 0
        return Memory(
            weights=held * self.element_bytes + added * _FLOAT32_BYTES,
            gradients=trained * (_FLOAT32_BYTES if is_adapted else self.element_bytes),
            optimizer=trained * _moments(self.optimizer) * _FLOAT32_BYTES,
            activations=0,
            best=trained * _FLOAT32_BYTES if self.keeps_best and self.on_heap else 0,
        )

    def kept(self, folder: ModelFolder) -> int:
        """Return what a layer keeps of a batch for its backward."""
        if self.recomputes:
            return int(self.end(folder) * (_HEAP_SHARE if self.on_heap else 1))
        return self._computed(folder)

    def copies(self, num_parameters: int) -> int:
        """Return what copies of so many parameters in half precision take until the backward is through."""
        return num_parameters * _HALF_BYTES if self.casts and not self.recomputes else 0

    def _computed(self, folder: ModelFolder) -> int:
        """Return what a layer's forward leaves for its backward."""
        adapter = self.adapter if self.trains else LoraAdapter()  # a frozen layer keeps what LoRA's does
        kept = kept_by_layer(
            folder,
            FullAdapter() if self.on_heap else adapter,
            cells=self.batch.cells,
            row_cells=self.batch.row_tokens,
            element_bytes=self.element_bytes,
        )
        return int(kept * _HEAP_SHARE) if self.on_heap else kept

    def passing(self, folder: ModelFolder) -> int:
        """Return what a backward uses besides, one layer at a time, and the ends of the segment."""
        cells, size = self.batch.cells, self.element_bytes
        again = self._computed(folder) if self.recomputes else 0
        return again + used_by_backward(folder, cells=cells, element_bytes=size) + self.end(folder) * _ENDS

    def caches(self, folder: ModelFolder, num_layers: int) -> int:
        """Return what so many layers keep of texts that are generated."""
        return cache_bytes(
            folder, num_tokens=self.cached_tokens, num_layers=num_layers, is_trunk=self.is_trunk
        )

    def end(self, folder: ModelFolder) -> int:
        """Return the bytes of a batch's hidden states."""
        return self.batch.cells * folder.hidden_size * self.element_bytes


def estimate_memory(folder: ModelFolder, cut: Cut, role: Role, training: Training) -> Memory:
    """Estimate what a segment needs.

    Args:
        folder: The model.
        cut: Where it is cut.
        role: Which segment.
        training: How.
    """
    adapter = training.adapter
    held = segment_sizes(folder, cut)[role].num_parameters
    added = lora_parameters(folder, cut, adapter)[role] if isinstance(adapter, LoraAdapter) else 0
    lasting = training.lasting(held=held, added=added)
    # Nothing is taken back through a bottom that is not trained.
    num_layers = 0 if role is Role.BOTTOM and not training.trains else len(cut.layers(role))
    head = _count(folder.config.get("vocab_size")) * training.batch.cells if role is Role.TOP else 0
    return Memory(
        weights=lasting.weights,
        gradients=lasting.gradients,
        optimizer=lasting.optimizer,
        activations=num_layers * training.kept(folder) + training.copies(held) + training.passing(folder),
        logits=_LOGITS_KEPT * head * training.element_bytes,
        caches=training.caches(folder, len(cut.layers(role))),
        best=lasting.best,
    )


def lay_trunk(
    folder: ModelFolder, cut: Cut, training: Training, devices: Sequence[DeviceMemory]
) -> tuple[LayerRange, ...]:
    """Lay a trunk's layers over devices, by what is free of each.

    Args:
        folder: The model.
        cut: Where it is cut.
        training: How the trunk is trained.
        devices: What may be used.

    Raises:
        PlacementError: The layers do not fit.
    """
    # A backward passes the devices one after another, and needs this much on each.
    passing = training.passing(folder)
    rooms = [DeviceMemory(device.name, device.free_bytes - passing) for device in devices]
    return tuple(
        replace(part, num_bytes=part.num_bytes + passing, free_bytes=part.free_bytes + passing)
        for part in place_layers(_burden(folder, cut, training), rooms)
    )


def _burden(folder: ModelFolder, cut: Cut, training: Training) -> Burden:
    layers, adapter = cut.layers(Role.TRUNK), training.adapter
    sizes = layer_sizes(folder)
    none = [0] * folder.num_layers
    added = lora_parameters_of_layers(folder, adapter) if isinstance(adapter, LoraAdapter) else none
    kept = training.kept(folder)
    return Burden(
        layers=layers,
        layer_bytes=tuple(
            training.lasting(held=sizes[layer].num_parameters, added=added[layer]).lasting
            + max(training.copies(sizes[layer].num_parameters) + kept, training.caches(folder, 1))
            for layer in layers
        ),
    )


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _moments(optimizer: AdamWSpec | SGDSpec) -> int:
    if isinstance(optimizer, AdamWSpec):
        return 2
    return 1 if optimizer.momentum else 0
