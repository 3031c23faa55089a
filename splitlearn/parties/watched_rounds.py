"""The rounds that are watched at the trunk: which was best, and whether more of them are worth training."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from splitlearn.spec import JobSpec
from splitlearn.tasks import LossSum
from splitlearn.training.best import Standing, split_standing


@dataclass
class WatchedRounds:
    """Follows the evaluations of a job whose specification asks for it; else it only counts rounds.

    Attributes:
        spec: The job.
        last_round: The last one that is trained.
    """

    spec: JobSpec
    last_round: int = 0
    _standing: Standing = field(default=Standing(), init=False)

    @property
    def _names(self) -> list[str]:
        return [silo.name for silo in self.spec.silos]

    @property
    def is_over(self) -> bool:
        """Whether no further round is trained."""
        return self.last_round >= self.spec.rounds or self._standing.ends_the_job(self.spec.evaluation)

    @property
    def best_round(self) -> int | None:
        """The best one so far; None where the specification does not ask for it, or none is known."""
        return self._standing.best_round if self.spec.evaluation.keep_best else None

    @property
    def result_round(self) -> int:
        """The round that the result is of, once the job is over."""
        return self.last_round if self.best_round is None else self.best_round

    def evaluated(self, round_number: int, losses: Mapping[str, LossSum]) -> None:
        """Take in what the silos told of their held-out rows; a loss of no tokens is withheld.

        Args:
            round_number: The round that was evaluated.
            losses: Of every silo that is there, by name.
        """
        if not self.spec.evaluation.watches:
            return
        min_delta = self.spec.evaluation.min_delta
        self._standing = self._standing.after(round_number, losses, min_delta=min_delta)

    def is_best(self, round_number: int) -> bool:
        """Whether the result would be this round's, were it the last."""
        return self.best_round == round_number

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint must hold, by name."""
        return self._standing.state(self._names)

    def resume(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Take over what a round's checkpoint says of the evaluations; return what it holds besides.

        Raises:
            StorageError: What it says of the evaluations cannot be.
        """
        self._standing, rest = split_standing(tensors, self._names)
        return rest
