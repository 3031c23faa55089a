"""What both trainers do with their own gradients: measure, clip, step, and take the step back."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from splitlearn.errors import StorageError
from splitlearn.spec import JobSpec
from splitlearn.training.clipping import clip_coefficient, gradient_norms, scale_gradients
from splitlearn.training.learning_rate import learning_rate
from splitlearn.training.optimizer import (
    NamedParameters,
    Snapshot,
    build_optimizer,
    load_optimizer_state,
    optimizer_state,
    restore_snapshot,
    set_learning_rate,
    take_snapshot,
)

PARAMETER = "parameter/"
OPTIMIZER = "optimizer/"
"""What the names of a checkpoint's tensors begin with."""


class Updater:
    """The trainable parameters of one party and their optimiser.

    Args:
        parameters: Trainable parameters by the whole model's names, in its order. None at all is legal:
            then every call succeeds and moves nothing.
        spec: The job: optimiser, learning rate, clipping.
        undoable: Keep a copy of everything trainable from before the last step (memory: as much again).
    """

    def __init__(self, parameters: NamedParameters, *, spec: JobSpec, undoable: bool = False) -> None:
        self._named = tuple(parameters)
        self._spec = spec
        self._optimizer = build_optimizer(self.parameters, spec.optimizer) if self._named else None
        self._undoable = undoable
        self._before: Snapshot | None = None

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The trainable parameters in model order."""
        return [parameter for _, parameter in self._named]

    def begin(self, step: int) -> None:
        """Forget the gradients of an earlier step and set the learning rate of this one."""
        self.forget_gradients()
        if self._optimizer is not None:
            rate = learning_rate(self._spec.learning_rate, step=step, total_steps=self._spec.total_steps)
            set_learning_rate(self._optimizer, rate)

    def forget_gradients(self) -> None:
        """Free the gradients."""
        if self._optimizer is not None:
            self._optimizer.zero_grad(set_to_none=True)

    def unscale(self, exponent: int) -> None:
        """Divide every gradient by 2^exponent, exactly; 0 costs nothing."""
        scale_gradients(self.parameters, 2.0**-exponent)

    def norms(self) -> tuple[float, ...]:
        """Return the gradient norm of every trainable tensor, fp32, model order."""
        return gradient_norms(self.parameters)

    def apply(self, total: float) -> bool:
        """Clip by a global norm and step, unless the norm is not finite. The gradients are freed.

        Args:
            total: Global gradient norm; with clipping off it only says whether the gradients are finite.

        Returns:
            Whether the step was taken.
        """
        if not math.isfinite(total):
            self.skip()
            return False
        if self._optimizer is not None:
            self._before = take_snapshot(self._optimizer, self._named) if self._undoable else None
            if self._spec.max_grad_norm is not None:
                scale_gradients(self.parameters, clip_coefficient(total, max_norm=self._spec.max_grad_norm))
            self._optimizer.step()
        self.forget_gradients()
        return True

    def skip(self) -> None:
        """End a step without moving anything; to undo it is to do nothing."""
        self._before = Snapshot()
        self.forget_gradients()

    def undo(self) -> None:
        """Go back to before the last step, bit for bit. Only once per step, only if built undoable."""
        self.forget_gradients()
        if self._optimizer is None:
            return
        assert self._before is not None, "no step to undo, or this updater was not built undoable"
        restore_snapshot(self._optimizer, self._before)
        self._before = None

    def settle(self, *, forget_moments: bool) -> None:
        """Make the last step final: the parameters were moved by somebody else since.

        Args:
            forget_moments: Begin the optimiser's moments anew, as before the first step.
        """
        self._before = None
        if forget_moments and self._optimizer is not None:
            self._optimizer.state.clear()

    def state(self) -> dict[str, Tensor]:
        """Return parameters and optimiser tensors under names for a checkpoint. Not copies."""
        tensors = {f"{PARAMETER}{name}": parameter.detach() for name, parameter in self._named}
        if self._optimizer is not None:
            moments = optimizer_state(self._optimizer, self._named)
            tensors.update({f"{OPTIMIZER}{key}": value for key, value in moments.items()})
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`state` returned, bit for bit. A refusal changes nothing.

        Raises:
            StorageError: The tensors are not exactly those that are trained here.
        """
        parameters = {
            key.removeprefix(PARAMETER): value for key, value in tensors.items() if key.startswith(PARAMETER)
        }
        moments = {
            key.removeprefix(OPTIMIZER): value for key, value in tensors.items() if key.startswith(OPTIMIZER)
        }
        self._refuse_strangers(parameters, len(tensors) - len(parameters) - len(moments))
        if self._optimizer is not None:
            load_optimizer_state(self._optimizer, self._named, moments)
        with torch.no_grad():
            for name, parameter in self._named:
                parameter.copy_(parameters[name])
        self._before = None

    def _refuse_strangers(self, parameters: Mapping[str, Tensor], num_other: int) -> None:
        expected = {name: list(parameter.shape) for name, parameter in self._named}
        found = {name: list(value.shape) for name, value in parameters.items()}
        if expected == found and not num_other:
            return
        wrong = [name for name in expected | found if expected.get(name) != found.get(name)]
        raise StorageError(
            f"the checkpoint does not hold what is trained here: {len(expected)} tensors expected, "
            f"{len(found)} found, {num_other} of another kind, first that differs {wrong[:1]}; "
            "resume with the specification that it was saved under"
        )
