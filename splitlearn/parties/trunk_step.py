"""One training step at the trunk: what every silo has sent of it, and what can be computed next."""

from torch import Tensor

from splitlearn.errors import ProtocolError
from splitlearn.parties.crossing import to_array, to_layout, to_tensor
from splitlearn.parties.plan import Turn
from splitlearn.parties.round_table import unexpected
from splitlearn.partition import BatchLayout
from splitlearn.spec import JobSpec
from splitlearn.training import StepKey, TrunkPart
from splitlearn.wire import Activations, GradActivations, GradHidden, Message, Outcome


class TrunkStep:
    """Collects a step's messages; always answers in the roster's order, never in that of arrival.

    Args:
        spec: The job.
        turn: The turn that the step belongs to.
        number: Global step.
    """

    def __init__(self, spec: JobSpec, turn: Turn, number: int) -> None:
        self.number = number
        self.silos = turn.silos
        self._spec = spec
        self._round = turn.round
        self.restart()

    def restart(self) -> None:
        """Forget what was sent: the silos will send it again."""
        num_micro_batches = self._spec.accumulation_steps
        self._activations: list[dict[str, Activations]] = [{} for _ in range(num_micro_batches)]
        self._grads: list[dict[str, GradHidden]] = [{} for _ in range(num_micro_batches)]
        self._num_forwarded = 0
        self._num_backwarded = 0

    def take(self, name: str, message: Message) -> None:
        """Keep one silo's message.

        Raises:
            ProtocolError: It disagrees with the specification, or with what the silo said before.
            TrainingError: The silo left.
        """
        match message:
            case Activations():
                if message.micro_batch and name not in self._activations[0]:
                    return  # sent before the silo learnt that the step must be begun again
                self._check(name, message)
                self._activations[message.micro_batch][name] = message
            case GradHidden():
                self._grads[message.micro_batch][name] = message
            case _:
                raise unexpected(name, message)

    @property
    def is_begun(self) -> bool:
        """Every silo's first activations are here."""
        return len(self._activations[0]) == len(self.silos)

    @property
    def is_done(self) -> bool:
        """Every micro-batch went both ways."""
        return self._num_backwarded == self._spec.accumulation_steps

    @property
    def missing(self) -> frozenset[str]:
        """The silos that the next computation waits for."""
        missing: set[str] = set()
        if self._num_forwarded < self._spec.accumulation_steps:
            missing |= set(self.silos) - self._activations[self._num_forwarded].keys()
        if self._num_backwarded < self._num_forwarded:
            missing |= set(self.silos) - self._grads[self._num_backwarded].keys()
        return frozenset(missing)

    @property
    def next_forward(self) -> int | None:
        """The micro-batch that can go forward now."""
        index = self._num_forwarded
        is_here = index < self._spec.accumulation_steps and len(self._activations[index]) == len(self.silos)
        return index if is_here else None

    @property
    def next_backward(self) -> int | None:
        """The micro-batch that can go backward now."""
        index = self._num_backwarded
        is_here = index < self._num_forwarded and len(self._grads[index]) == len(self.silos)
        return index if is_here else None

    def key(self, micro_batch: int) -> StepKey:
        """Return what the trunk's randomness for a micro-batch is keyed by."""
        return StepKey(self._spec.seed, self._round, self.number, micro_batch)

    def parts(self, micro_batch: int) -> list[TrunkPart]:
        """Return the silos' activations of a micro-batch."""
        messages = [self._activations[micro_batch][name] for name in self.silos]
        return [TrunkPart(self._layout(message), to_tensor(message.hidden)) for message in messages]

    def grads(self, micro_batch: int) -> list[Tensor]:
        """Return the silos' gradients of a micro-batch."""
        return [to_tensor(self._grads[micro_batch][name].grad) for name in self.silos]

    @property
    def num_label_tokens(self) -> int:
        """N: label tokens of the step over all silos."""
        return sum(message.num_label_tokens for message in self._activations[0].values())

    def weights(self) -> list[float]:
        """Return each silo's share n_i / N of the label tokens; all 0 where there are none."""
        total = self.num_label_tokens
        return [self._activations[0][name].num_label_tokens / total if total else 0.0 for name in self.silos]

    def outcomes(self) -> list[Outcome]:
        """Return the silos' outcomes of the step before.

        Raises:
            ProtocolError: A silo began this step without saying how the last one went.
        """
        outcomes = [self._activations[0][name].outcome for name in self.silos]
        told = [outcome for outcome in outcomes if outcome is not None]
        if len(told) < len(outcomes):
            late = self.silos[outcomes.index(None)]
            raise ProtocolError(f"silo {late!r} began step {self.number} without the outcome of the last one")
        return told

    def forwarded(self) -> None:
        """Note that the next micro-batch went forward."""
        self._num_forwarded += 1

    def backwarded(self) -> None:
        """Note that the next micro-batch went backward, and let go of its messages."""
        self._grads[self._num_backwarded].clear()
        self._num_backwarded += 1

    def answer(self, micro_batch: int, grad_ND: Tensor | None, outcome: Outcome | None) -> GradActivations:
        """Return what one silo gets back of a micro-batch."""
        grad = None if grad_ND is None else to_array(grad_ND)
        return GradActivations(micro_batch=micro_batch, outcome=outcome, grad=grad)

    def _layout(self, message: Activations) -> BatchLayout:
        return to_layout(message, max_rows=self._spec.batch_size, max_tokens=self._spec.max_tokens)

    def _check(self, name: str, message: Activations) -> None:
        expected = self._spec.accumulation_steps
        if message.num_micro_batches != expected:
            raise ProtocolError(
                f"silo {name!r} announced {message.num_micro_batches} micro-batches; the specification has "
                f"{expected} (accumulation_steps)"
            )
        first = self._activations[0].get(name, message)
        if message.num_label_tokens != first.num_label_tokens:
            raise ProtocolError(
                f"silo {name!r} announced {first.num_label_tokens} label tokens for step {self.number}, "
                f"then {message.num_label_tokens}"
            )
