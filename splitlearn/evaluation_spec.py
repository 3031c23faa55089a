"""How a job is evaluated, and what the evaluations decide. Torch-free."""

from typing import Self

from pydantic import Field, model_validator

from splitlearn.frozen import Frozen

MAX_GENERATED_AT_ONCE = 64
"""Rows whose texts an evaluation generates together, at most."""

MAX_CACHE_BYTES = 1 << 30
"""Keys and values that a trunk keeps for all that is generated at once, unless it is told otherwise."""


def _is_unset(value: object) -> bool:
    """Leave a field that came later out of a document that does not use it, so that its digest stays."""
    return not value


def _is_set(value: object) -> bool:
    """Likewise, where the field is set unless somebody unsets it."""
    return bool(value)


class EvaluationSpec(Frozen):
    """Evaluation on each silo's held-out rows, split, with the silo's own blocks.

    Attributes:
        before_training: Evaluate what the job begins with, before step 1: round 0.
        every_rounds: Evaluate after each n-th round besides the end; 0 for no round but the last.
        holdout: Share of a silo's rows that are held out, by a seeded hash.
        batch_size: Rows per evaluation batch.
        max_rows: At most this many held-out rows of each silo are evaluated.
        keep_best: The result is that of the evaluated round with the lowest loss, over all silos that tell
            theirs, instead of the last round's. Round 0 counts where it is evaluated: then a job whose
            training made nothing better results in what it began with.
        patience_evaluations: After so many evaluations in a row that did not improve the loss, the job is
            over; 0 trains all rounds.
        min_delta: An evaluation improves the loss where it is lower than the best by more than this, in nats.
    """

    before_training: bool = Field(default=True, strict=True, exclude_if=_is_set)
    every_rounds: int = Field(default=0, ge=0, le=100_000)
    holdout: float = Field(default=0.1, gt=0, le=0.5)
    batch_size: int = Field(default=8, ge=1, le=4096)
    max_rows: int = Field(default=256, ge=1, le=1_000_000)
    keep_best: bool = Field(default=False, strict=True, exclude_if=_is_unset)
    patience_evaluations: int = Field(default=0, ge=0, le=100_000, exclude_if=_is_unset)
    min_delta: float = Field(default=0.0, ge=0, le=100, exclude_if=_is_unset)

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        watched = [name for name in ("keep_best", "patience_evaluations") if getattr(self, name)]
        if watched and not self.every_rounds:
            raise ValueError(
                f"{watched[0]}: has a meaning only where rounds are evaluated besides the last; set "
                "every_rounds to 1 or more, or leave it out"
            )
        if self.min_delta and not watched:
            raise ValueError(
                f"min_delta: {self.min_delta} has a meaning only with keep_best or patience_evaluations; "
                "leave it out"
            )
        return self

    def evaluations_before_the_end(self, rounds: int) -> int:
        """Return after how many rounds but the last of a job of so many is evaluated."""
        return (rounds - 1) // self.every_rounds if self.every_rounds else 0

    @property
    def watches(self) -> bool:
        """Whether the evaluations decide on the result, or on the job's end."""
        return self.keep_best or self.patience_evaluations > 0
