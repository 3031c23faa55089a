"""The trunk's half of a training step, for all silos of the roster at once. No I/O.

Axes: B rows, T padded length, D hidden size, N valid (non-pad) tokens of one silo's micro-batch.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from splitlearn.errors import ProtocolError
from splitlearn.partition import BatchLayout, TrunkSegment
from splitlearn.spec import JobSpec
from splitlearn.training.best import BestBlocks, without_best
from splitlearn.training.clipping import total_norm
from splitlearn.training.evaluation import evaluating
from splitlearn.training.outcomes import all_finite, joint_norm, trunk_outcome
from splitlearn.training.precision import computing_in, first_loss_scale, split_loss_scale
from splitlearn.training.recomputing import Recomputing
from splitlearn.training.seeding import TRUNK_PARTY, StepKey, seeded
from splitlearn.training.trunk_average import contribution
from splitlearn.training.updater import Updater
from splitlearn.wire import Outcome


@dataclass(frozen=True, slots=True)
class TrunkPart:
    """What one silo sends of a micro-batch.

    Attributes:
        layout: Lengths and padding side of its rows.
        hidden_ND: Its packed activations, fp32 [N, D].
    """

    layout: BatchLayout
    hidden_ND: Tensor  # noqa: N815 - tensors carry their axes


@dataclass(frozen=True, slots=True)
class _InFlight:
    """A micro-batch between forward and backward: the graph's ends, and each silo's share of its rows."""

    input_ND: Tensor  # noqa: N815 - tensors carry their axes
    output_ND: Tensor  # noqa: N815 - same
    sizes: list[int]


class TrunkTrainer:
    """Holds the trunk, its optimiser and the graphs of the micro-batches in flight.

    One step is: :meth:`begin_step`; for every micro-batch :meth:`forward` and :meth:`backward`; then
    :meth:`outcome` and, when the silos' outcomes are known, :meth:`finish_step`.
    Tensors that come in are moved to the device of the trunk's first layer; those that go out lie where they
    were computed: hidden states on the last layer's device, gradients on the first's.
    Not safe to call from several threads at once.

    Args:
        segment: The trunk; put into training mode.
        spec: The job.
        party: Who seeds the trunk's dropout; one name per replica.
    """

    def __init__(self, segment: TrunkSegment, *, spec: JobSpec, party: str = TRUNK_PARTY) -> None:
        self._segment, self._spec, self._party = segment.train(), spec, party
        self._device = next(segment.parameters()).device
        self._needs_input_grad = spec.silo_blocks != "frozen"
        self._updater = Updater(segment.trainable, spec=spec)
        self._scale = first_loss_scale(spec)
        self._best = BestBlocks(segment.trainable) if spec.evaluation.keep_best else None
        self._recomputing = Recomputing(segment, wanted=spec.gradient_checkpointing)
        self._in_flight: dict[int, _InFlight] = {}
        self._num_label_tokens = 0
        self._num_trained_tokens = 0
        self._outcome: Outcome | None = None

    @property
    def loss_scale_exponent(self) -> int:
        """The silos multiply their losses of the current step by 2 to this power; 0 but for fp16."""
        return 0 if self._scale is None else self._scale.exponent

    @property
    def segment(self) -> TrunkSegment:
        """The trunk itself, as trained so far; in training mode."""
        return self._segment

    def begin_step(self, step: int, *, num_label_tokens: int) -> None:
        """Start a step; whatever an earlier, unfinished step had in flight is dropped.

        Args:
            step: Global optimiser step, from 0.
            num_label_tokens: N, the label tokens of the step over all silos and micro-batches. With 0
                the trunk does not move.
        """
        self._in_flight.clear()
        self._num_label_tokens = num_label_tokens
        self._outcome = None
        self._updater.begin(step)

    def forward(self, parts: Sequence[TrunkPart], key: StepKey) -> list[Tensor]:
        """Run the trunk once on the silos' activations, concatenated.

        Args:
            parts: One per silo that takes part in the step, in the roster's order, never in that of arrival.
            key: The micro-batch; its graph is kept until :meth:`backward`.

        Returns:
            For each part the packed hidden states at the upper cut, fp32 [N, D], detached.

        Raises:
            ProtocolError: A tensor's shape is not that of its layout: that silo's fault.
        """
        assert key.micro_batch not in self._in_flight, f"micro-batch {key.micro_batch} is in flight already"
        _expect_shapes(parts, hidden_size=self._segment.origin.hidden_size)
        layout, input_ND = _concatenated(parts)
        input_ND = input_ND.detach().to(self._device).requires_grad_(self._needs_input_grad)
        with self._computing(), seeded(self._segment, key, segment="trunk", party=self._party):
            output_BTD = self._segment(layout.unpack(input_ND), layout)
        output_ND = layout.pack(output_BTD).float()
        sizes = [part.layout.num_valid for part in parts]
        self._in_flight[key.micro_batch] = _InFlight(input_ND, output_ND, sizes)
        return list(torch.split(output_ND.detach(), sizes))

    def backward(
        self, micro_batch: int, grads: Sequence[Tensor], *, weights: Sequence[float]
    ) -> list[Tensor | None]:
        """Take the silos' gradients back through the trunk; the graph is freed.

        Args:
            micro_batch: A micro-batch that went through :meth:`forward` in this step.
            grads: For each part the gradient of the silo's own mean loss, times the scale, fp32 [N, D].
            weights: For each part its share n_i / N of the step's label tokens. A weight of exactly 1 or
                0 costs no rounding.

        Returns:
            For each part the gradient of the silo's own mean loss at the lower cut, times the scale, fp32
            [N, D] (zeros at weight 0); None for all when the bottoms are frozen.

        Raises:
            ProtocolError: A gradient's shape is not that of the activations: that silo's fault.
        """
        assert micro_batch in self._in_flight, f"micro-batch {micro_batch} is not in flight"
        flight = self._in_flight.pop(micro_batch)
        width = flight.output_ND.shape[1]
        for index, (grad_ND, size) in enumerate(zip(grads, flight.sizes, strict=True)):
            _expect_shape(grad_ND, (size, width), what=f"gradient {index} of micro-batch {micro_batch}")
        weighted = [_weighted(grad_ND, weight) for grad_ND, weight in zip(grads, weights, strict=True)]
        if flight.output_ND.requires_grad:  # not where an adapter's targets are all in the silos' blocks
            with self._recomputing.backward():
                torch.autograd.backward(flight.output_ND, _joined(weighted).to(flight.output_ND.device))
        if not self._needs_input_grad:
            return [None] * len(grads)
        assert flight.input_ND.grad is not None, "the trunk does not depend on its input"
        slices = torch.split(flight.input_ND.grad, flight.sizes)
        return [_unweighted(grad_ND, weight) for grad_ND, weight in zip(slices, weights, strict=True)]

    def outcome(self) -> Outcome:
        """Return the trunk's outcome of the step; call it when every micro-batch is through."""
        if self._outcome is None:
            self._updater.unscale(self.loss_scale_exponent)
            self._outcome = trunk_outcome(self._updater.norms(), num_tokens=self._num_label_tokens)
        return self._outcome

    def finish_step(self, silo_outcomes: Sequence[Outcome]) -> bool:
        """Clip and step, or skip where a gradient is not finite or nobody had anything to learn from.

        Args:
            silo_outcomes: Of every silo that took part in the step.

        Returns:
            Whether the step was taken.
        """
        own = self.outcome()
        if self._num_label_tokens == 0:
            self._updater.skip()
            return False
        taken = self._apply(own, silo_outcomes)
        if self._scale is not None:
            self._scale = self._scale.after(finite=taken)
        return taken

    def _apply(self, own: Outcome, silo_outcomes: Sequence[Outcome]) -> bool:
        if not all_finite([own, *silo_outcomes]):
            self._updater.skip()
            return False
        applied = self._updater.apply(self._total_norm(own, silo_outcomes))
        self._num_trained_tokens += self._num_label_tokens if applied else 0
        return applied

    def evaluate(self, part: TrunkPart) -> Tensor:
        """Return the packed hidden states at the upper cut for one silo's evaluation batch, fp32 [N, D].

        Raises:
            ProtocolError: The tensor's shape is not that of its layout: the silo's fault.
        """
        _expect_shapes([part], hidden_size=self._segment.origin.hidden_size)
        with self._computing(), evaluating(self._segment):
            hidden_BTD = part.layout.unpack(part.hidden_ND.to(self._device))
            return part.layout.pack(self._segment(hidden_BTD, part.layout)).float()

    def keep_best(self, round_number: int) -> None:
        """Take the trunk as it is for the best so far; only with ``evaluation.keep_best``."""
        assert self._best is not None, "the specification does not ask for the best round"
        self._best.keep(round_number)

    def restore_best(self) -> None:
        """Put the trunk back to the best round; without ``evaluation.keep_best`` it stays as it is."""
        if self._best is not None:
            self._best.restore()

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint must hold, by name; not copies."""
        scale = {} if self._scale is None else self._scale.state()
        return {**self._updater.state(), **scale, **self.best_state()}

    def best_state(self) -> dict[str, Tensor]:
        """Return what of the state is the best round's; nothing without ``evaluation.keep_best``."""
        return {} if self._best is None else self._best.state()

    def contribution(self) -> dict[str, Tensor]:
        """Return what a replica commits: its state, and the label tokens trained on since it was loaded."""
        return contribution(self.state(), num_tokens=self._num_trained_tokens)

    def load_state(self, tensors: Mapping[str, Tensor], *, keeps_best: bool = False) -> None:
        """Take over what :meth:`state` returned.

        Args:
            tensors: As it was returned.
            keeps_best: What was kept here as the best so far stays that, whatever the tensors say of it.

        Raises:
            StorageError: The tensors are not those that this trunk trains.
        """
        scale, rest = split_loss_scale(tensors)
        self._updater.load_state(rest if self._best is None else without_best(rest))
        self._num_trained_tokens = 0
        if self._best is not None and not keeps_best:
            self._best.load_state(rest)
        if self._scale is not None:
            self._scale = scale or self._scale

    def _computing(self) -> AbstractContextManager[object]:
        return computing_in(self._spec.precision, self._device)

    def _total_norm(self, own: Outcome, silo_outcomes: Sequence[Outcome]) -> float:
        if len(self._spec.silos) == 1:
            return joint_norm(silo_outcomes[0], own)
        return total_norm(own.norms_trunk)


def _concatenated(parts: Sequence[TrunkPart]) -> tuple[BatchLayout, Tensor]:
    if len(parts) == 1:
        return parts[0].layout, parts[0].hidden_ND
    layout = BatchLayout.concatenate([part.layout for part in parts])
    return layout, torch.cat([part.hidden_ND for part in parts])


def _joined(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def _weighted(grad_ND: Tensor, weight: float) -> Tensor:
    if weight == 0.0:
        return torch.zeros_like(grad_ND)
    return grad_ND if weight == 1.0 else grad_ND * weight


def _unweighted(grad_ND: Tensor, weight: float) -> Tensor:
    if weight == 0.0:
        return torch.zeros_like(grad_ND)
    return grad_ND if weight == 1.0 else grad_ND / weight


def _expect_shapes(parts: Sequence[TrunkPart], *, hidden_size: int) -> None:
    for index, part in enumerate(parts):
        expected = (part.layout.num_valid, hidden_size)
        _expect_shape(part.hidden_ND, expected, what=f"hidden of silo {index}")


def _expect_shape(tensor: Tensor, expected: tuple[int, int], *, what: str) -> None:
    if tensor.shape != expected:
        raise ProtocolError(f"{what} has shape {list(tensor.shape)}, expected {list(expected)}")
