"""A silo's half of a training step: bottom, top, loss. No I/O; the caller carries tensors to the trunk.

Axes: B rows, T padded length, D hidden size, V vocabulary, N valid (non-pad) tokens of the batch.
"""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from splitlearn.errors import ProtocolError
from splitlearn.partition import BatchLayout, SiloBlocks, freeze
from splitlearn.spec import JobSpec
from splitlearn.tasks import RowScore, TokenBatch, row_scores
from splitlearn.training.averaging import AveragedBlocks, without_average
from splitlearn.training.best import BestBlocks, without_best
from splitlearn.training.clipping import total_norm
from splitlearn.training.evaluation import evaluating
from splitlearn.training.loss import summed_loss
from splitlearn.training.outcomes import all_finite, joint_norm, silo_outcome
from splitlearn.training.precision import MAX_LOSS_SCALE_EXPONENT, computing_in
from splitlearn.training.recomputing import Recomputing
from splitlearn.training.seeding import StepKey, seeded
from splitlearn.training.updater import Updater
from splitlearn.wire import Outcome


class SiloTrainer:
    """Holds one silo's blocks, their optimiser and the graphs of the micro-batches in flight.

    One step is: :meth:`begin_step`; for every micro-batch :meth:`bottom_forward`,
    :meth:`top_loss_and_grad`, :meth:`bottom_backward`; then :meth:`outcome` and :meth:`finish_step`.
    Tensors that come in are moved to the blocks' device, those that go out lie there.
    Not safe to call from several threads at once.

    Args:
        blocks: Bottom and top, which may share a tied embedding. They are put into training mode, and
            frozen when the specification says so (load frozen blocks without an adapter).
        spec: The job.
        silo: This silo's name in the roster.
        undoable: Keep what :meth:`undo_step` needs (memory: parameters and moments again). Needed where
            another party may void a step that this one has already taken.

    Raises:
        SpecError: The roster has no such silo.
    """

    def __init__(self, blocks: SiloBlocks, *, spec: JobSpec, silo: str, undoable: bool = False) -> None:
        spec.silo_index(silo)
        self._blocks, self._spec, self._silo = blocks, spec, silo
        self._frozen = spec.silo_blocks == "frozen"
        self._device = next(blocks.bottom.parameters()).device
        for segment in (blocks.bottom, blocks.top):
            segment.train()
            if self._frozen:
                freeze(segment)
        self._bottom_again, self._top_again = (
            Recomputing(segment, wanted=spec.gradient_checkpointing)
            for segment in (blocks.bottom, blocks.top)
        )
        bottom = blocks.bottom.trainable  # with the embedding that the top may share
        self._num_bottom = len(bottom)
        trained = [*bottom, *blocks.top.trainable]
        self._updater = Updater(trained, spec=spec, undoable=undoable)
        self._averaged = AveragedBlocks(trained) if spec.silo_blocks == "averaged" else None
        self._best = BestBlocks(trained) if spec.evaluation.keep_best else None
        self._in_flight: dict[int, Tensor | None] = {}
        self._num_label_tokens = 0
        self._scale_exponent: int | None = None
        self._loss_is_finite = True
        self._outcome: Outcome | None = None

    def begin_step(self, step: int, *, num_label_tokens: int) -> None:
        """Start a step; whatever an earlier, unfinished step had in flight is dropped.

        Args:
            step: Global optimiser step, from 0.
            num_label_tokens: This silo's label tokens over all micro-batches of the step. With 0 the
                silo contributes nothing to the step, and its own blocks do not move in it.
        """
        self._in_flight.clear()
        self._num_label_tokens = num_label_tokens
        self._scale_exponent = None
        self._loss_is_finite = True
        self._outcome = None
        self._updater.begin(step)

    def bottom_forward(self, batch: TokenBatch, key: StepKey) -> Tensor:
        """Return the packed activations at the lower cut, fp32 [N, D], detached.

        The graph is kept under the key's micro-batch until :meth:`bottom_backward`, unless the bottom is
        frozen.
        """
        assert key.micro_batch not in self._in_flight, f"micro-batch {key.micro_batch} is in flight already"
        bottom = self._blocks.bottom
        with torch.set_grad_enabled(not self._frozen), self._computing(), self._seeded("bottom", key):
            hidden_BTD = bottom(batch.input_ids_BT.to(self._device), batch.layout)
        hidden_ND = batch.layout.pack(hidden_BTD).float()
        self._in_flight[key.micro_batch] = None if self._frozen else hidden_ND
        return hidden_ND.detach()

    def top_loss_and_grad(
        self, hidden_ND: Tensor, batch: TokenBatch, key: StepKey, *, loss_scale_exponent: int = 0
    ) -> tuple[float, Tensor]:
        """Run top and loss forward and backward. The graph is freed on return.

        Args:
            hidden_ND: What the trunk returned for this micro-batch, fp32 [N, D].
            batch: The micro-batch's tokens and labels.
            key: The micro-batch.
            loss_scale_exponent: The loss is multiplied by 2 to this power before it is taken back, as the
                trunk says; the same for all micro-batches of a step.

        Returns:
            The sum of the loss over the micro-batch's label tokens, in nats, and the gradient of the
            silo's mean loss over the step (sum / n_i) at the upper cut, times the scale, fp32 [N, D].

        Raises:
            ProtocolError: The tensor's shape is not that of this micro-batch, or the scale is not one of this
                step: the trunk's fault.
        """
        self._expect_shape(hidden_ND, batch.layout, what=f"hidden of micro-batch {key.micro_batch}")
        self._expect_scale(loss_scale_exponent)
        if self._num_label_tokens == 0 or batch.layout.num_rows == 0:
            return 0.0, torch.zeros_like(hidden_ND)
        leaf_ND = hidden_ND.detach().to(self._device).requires_grad_()
        top = self._blocks.top
        with self._computing(), self._seeded("top", key):
            logits_BTV = top(batch.layout.unpack(leaf_ND), batch.layout)
        loss = summed_loss(logits_BTV, batch.labels_BT.to(self._device))
        mean = loss / self._num_label_tokens
        with self._top_again.backward():
            torch.autograd.backward(mean * 2.0**loss_scale_exponent if loss_scale_exponent else mean)
        loss_sum = loss.item()
        self._loss_is_finite &= math.isfinite(loss_sum)
        assert leaf_ND.grad is not None, "the top does not depend on its input"
        return loss_sum, leaf_ND.grad

    def bottom_backward(self, micro_batch: int, grad_ND: Tensor | None) -> None:
        """Take the gradient at the lower cut back through the bottom; the graph is freed.

        Args:
            micro_batch: A micro-batch that went through :meth:`bottom_forward` in this step.
            grad_ND: fp32 [N, D], or None when the bottom is frozen.

        Raises:
            ProtocolError: The trunk sent a gradient to a frozen bottom, none to a trained one, or one of
                another shape.
        """
        assert micro_batch in self._in_flight, f"micro-batch {micro_batch} is not in flight"
        hidden_ND = self._in_flight.pop(micro_batch)
        if (grad_ND is None) is not (hidden_ND is None):
            state = "frozen" if self._frozen else "trained"
            sent = "no gradient" if grad_ND is None else "a gradient"
            raise ProtocolError(f"the trunk sent {sent} of micro-batch {micro_batch} to a {state} bottom")
        if hidden_ND is None or grad_ND is None:
            return
        if grad_ND.shape != hidden_ND.shape:
            raise ProtocolError(
                f"the gradient of micro-batch {micro_batch} has shape {list(grad_ND.shape)}, "
                f"its activations have {list(hidden_ND.shape)}"
            )
        if self._num_label_tokens > 0 and hidden_ND.requires_grad:  # a bottom may have nothing to train
            with self._bottom_again.backward():
                torch.autograd.backward(hidden_ND, grad_ND.to(self._device))

    def outcome(self) -> Outcome:
        """Return this silo's outcome of the step; call it when every micro-batch is through."""
        if self._outcome is None:
            self._updater.unscale(self._scale_exponent or 0)
            norms = self._updater.norms()
            self._outcome = silo_outcome(
                norms[: self._num_bottom],
                norms[self._num_bottom :],
                loss_is_finite=self._loss_is_finite,
                num_tokens=self._num_label_tokens,
            )
        return self._outcome

    def finish_step(self, trunk_outcome: Outcome) -> bool:
        """Clip and step, or skip where a gradient is not finite or there was nothing to learn from.

        Args:
            trunk_outcome: The trunk's outcome of this step.

        Returns:
            Whether the step was taken (by frozen blocks: whether it may be).
        """
        own = self.outcome()
        applied = self._apply(own, trunk_outcome)
        if self._averaged is not None:
            self._averaged.count(own.num_tokens if applied else 0)
        return applied

    def _apply(self, own: Outcome, trunk_outcome: Outcome) -> bool:
        if not all_finite([own, trunk_outcome]) or own.num_tokens == 0:
            self._updater.skip()
            return False
        if len(self._spec.silos) == 1:
            return self._updater.apply(joint_norm(own, trunk_outcome))
        return self._updater.apply(total_norm(own.norms_bottom + own.norms_top))

    def undo_step(self) -> None:
        """Restore parameters and optimiser to before the last :meth:`finish_step`, bit for bit.

        Drops what is in flight: the caller begins the next step again.
        """
        self._in_flight.clear()
        self._updater.undo()
        if self._averaged is not None:
            self._averaged.uncount()

    @property
    def averaged_blocks(self) -> AveragedBlocks:
        """What is to be averaged; only with ``silo_blocks: averaged``."""
        assert self._averaged is not None, f"silo_blocks is {self._spec.silo_blocks!r}: nothing is averaged"
        return self._averaged

    def take_average(self, mean: NDArray[np.float64]) -> None:
        """Take over the mean of all silos' changes; the last step cannot be undone after that.

        Args:
            mean: Of all trained tensors, one after another, in the model's order.
        """
        self.averaged_blocks.take(mean)
        self._updater.settle(forget_moments=self._spec.averaging.moments == "reset")

    def keep_best(self, round_number: int) -> None:
        """Take the blocks as they are for the best so far; only with ``evaluation.keep_best``."""
        assert self._best is not None, "the specification does not ask for the best round"
        self._best.keep(round_number)

    def restore_best(self) -> None:
        """Put the blocks back to the best round; without ``evaluation.keep_best`` they stay as they are."""
        if self._best is not None:
            self._best.restore()

    def evaluate_bottom(self, batch: TokenBatch) -> Tensor:
        """Return the packed activations at the lower cut for evaluation, fp32 [N, D]."""
        with self._computing(), evaluating(self._blocks.bottom):
            hidden_BTD = self._blocks.bottom(batch.input_ids_BT.to(self._device), batch.layout)
        return batch.layout.pack(hidden_BTD).float()

    def evaluate(self, hidden_ND: Tensor, batch: TokenBatch) -> list[RowScore]:
        """Score every row of an evaluation batch from what the trunk returned for it, fp32 [N, D].

        Raises:
            ProtocolError: The tensor's shape is not that of this batch: the trunk's fault.
        """
        self._expect_shape(hidden_ND, batch.layout, what="hidden of an evaluation batch")
        with self._computing(), evaluating(self._blocks.top):
            logits_BTV = self._blocks.top(batch.layout.unpack(hidden_ND.to(self._device)), batch.layout)
        return row_scores(logits_BTV, batch.labels_BT.to(self._device))

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint must hold, by name; not copies."""
        averaged = {} if self._averaged is None else self._averaged.state()
        best = {} if self._best is None else self._best.state()
        return {**self._updater.state(), **averaged, **best}

    def load_state(self, tensors: Mapping[str, Tensor], *, keeps_best: bool = False) -> None:
        """Take over what :meth:`state` returned.

        Args:
            tensors: As it was returned.
            keeps_best: What was kept here as the best so far stays that, whatever the tensors say of it.

        Raises:
            StorageError: The tensors are not those that this silo trains.
        """
        rest = tensors if self._best is None else without_best(tensors)
        self._updater.load_state(rest if self._averaged is None else without_average(rest))
        if self._averaged is not None:
            self._averaged.load_state(rest)
        if self._best is not None and not keeps_best:
            self._best.load_state(tensors)

    def _computing(self) -> AbstractContextManager[object]:
        return computing_in(self._spec.precision, self._device)

    def _expect_scale(self, exponent: int) -> None:
        """Refuse a scale that the job does not use, or that changes within a step."""
        highest = MAX_LOSS_SCALE_EXPONENT if self._spec.precision == "fp16" else 0
        known = exponent if self._scale_exponent is None else self._scale_exponent
        if exponent > highest or exponent != known:
            raise ProtocolError(
                f"the trunk scales the loss by 2^{exponent}; with precision {self._spec.precision!r} at most "
                f"2^{highest} is allowed, and the step began with 2^{known}"
            )
        self._scale_exponent = exponent

    def _seeded(self, segment: Literal["bottom", "top"], key: StepKey) -> AbstractContextManager[None]:
        module = self._blocks.bottom if segment == "bottom" else self._blocks.top
        return seeded(module, key, segment=segment, party=self._silo)

    def _expect_shape(self, hidden_ND: Tensor, layout: BatchLayout, *, what: str) -> None:
        expected = (layout.num_valid, self._blocks.top.origin.hidden_size)
        if hidden_ND.shape != expected:
            raise ProtocolError(f"{what} has shape {list(hidden_ND.shape)}, expected {list(expected)}")
