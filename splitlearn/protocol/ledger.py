"""Which micro-batch of which step is where: the order inside a turn.

A micro-batch passes the cut two or four times. In training: activations, hidden, grad_hidden,
grad_activations; in evaluation only the first two. Each passage happens in the order of the
micro-batches, and never before the passage ahead of it. Four counters say all of that, and, because
they only grow, the two sides may disagree by what is on its way without either being wrong.
"""

from splitlearn.errors import ProtocolError
from splitlearn.protocol.errors import IllegalMessageError, WrongStepError
from splitlearn.wire import Activations, GradActivations, GradHidden, Hidden, Message, Phase, TurnStart

Passage = Activations | Hidden | GradHidden | GradActivations

_PASSAGES: dict[Phase, tuple[type[Message], ...]] = {
    Phase.TRAIN: (Activations, Hidden, GradHidden, GradActivations),
    Phase.EVAL: (Activations, Hidden),
}


class StepLedger:
    """The steps of one turn, counted.

    Args:
        turn: The message that opened the turn.
    """

    def __init__(self, turn: TurnStart) -> None:
        self.turn = turn
        self.step = turn.first_step
        self._passages = _PASSAGES[turn.phase]
        self._counts = [0] * len(self._passages)
        self._num_micro_batches = 0
        self._discarding = False

    @property
    def is_between_steps(self) -> bool:
        """No micro-batch is on its way."""
        return self._counts[0] == 0

    @property
    def is_complete(self) -> bool:
        """The turn may end: all its steps are done; in evaluation the silo decides how many there are."""
        if not self.is_between_steps:
            return False
        return self.turn.phase is Phase.EVAL or self.step == self.turn.first_step + self.turn.num_steps

    def record(self, message: Passage, *, step: int) -> None:
        """Count one passage.

        Raises:
            WrongStepError: It belongs to another step.
            IllegalMessageError: It is out of order, of another phase, or one too many.
        """
        self._check(message, step=step)
        index = self._passages.index(type(message))
        if isinstance(message, Activations) and self.is_between_steps:
            self._num_micro_batches = message.num_micro_batches
        self._counts[index] += 1
        if self._counts[-1] == self._num_micro_batches:
            self.step += 1
            self._counts = [0] * len(self._passages)

    def void(self, step: int) -> None:
        """Take the current step back to its beginning.

        Raises:
            WrongStepError: Another step is current.
            IllegalMessageError: The trunk has answered this step already, or it has not begun.
        """
        if step != self.step:
            raise WrongStepError(f"step {step} was declared void, the current step is {self.step}")
        if self.is_between_steps or self._counts[1] > 0:
            raise IllegalMessageError(f"step {step} can be declared void only between its first two passages")
        self._counts = [0] * len(self._passages)

    def expect_restart(self) -> None:
        """From now on let :meth:`is_stale` find what the silo sent before it learnt of a void."""
        self._discarding = True

    def is_stale(self, message: Activations) -> bool:
        """Whether these activations were sent before the silo learnt that their step is void."""
        self._discarding = self._discarding and message.micro_batch > 0
        return self._discarding

    def _check(self, message: Passage, *, step: int) -> None:
        if type(message) not in self._passages:
            raise IllegalMessageError(
                f"a {type(message).__name__} message has no place in phase {self.turn.phase.name}"
            )
        if step != self.step:
            raise WrongStepError(
                f"a {type(message).__name__} of step {step}, the current step is {self.step}"
            )
        problem = self._problem(message, self._passages.index(type(message)))
        if problem is not None:
            raise problem

    def _problem(self, message: Passage, index: int) -> ProtocolError | None:
        name, seen = type(message).__name__, self._counts[index]
        if isinstance(message, Activations):
            if message.phase is not self.turn.phase:
                return IllegalMessageError(
                    f"activations of phase {message.phase.name} in a turn of {self.turn.phase.name}"
                )
            if self.turn.phase is Phase.TRAIN and self.is_complete:
                return IllegalMessageError(f"all {self.turn.num_steps} steps of the turn are done")
            if not self.is_between_steps and message.num_micro_batches != self._num_micro_batches:
                return IllegalMessageError(
                    f"step {self.step} began with {self._num_micro_batches} micro-batches, "
                    f"now {message.num_micro_batches}"
                )
            limit = message.num_micro_batches
        else:
            limit = self._counts[index - 1]
        if message.micro_batch != seen or seen >= limit:
            return IllegalMessageError(
                f"{name} of micro-batch {message.micro_batch} of step {self.step}; "
                f"{seen} were seen before it and {limit} may be"
            )
        return None
