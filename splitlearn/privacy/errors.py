"""What a secure sum refuses.

::

    ProtocolError
    └── SumError                 a message of the sum is refused
        ├── SumMessageError      out of order, or of other sizes than agreed
        ├── RosterRefusedError   too few members, a stranger, or words that are not ours
        ├── RosterMismatchError  another member has agreed to another roster
        ├── ForgedSumError       a signature, key or sealed seed is not the member's
        └── ReusedSumError       an attempt used before, or the same values over another roster
    TrainingError
    └── FixedPointError          a value that fixed point cannot hold; names the tensor
"""

from splitlearn.errors import ProtocolError, TrainingError


class SumError(ProtocolError):
    """A message of a secure sum is refused; nothing more is sent in it."""

    code = "sum"
    public = "the secure sum was refused"


class SumMessageError(SumError):
    """A message of the sum comes out of order, or is not of the size that was agreed."""

    code = "sum_message"


class RosterRefusedError(SumError):
    """The roster has too few members, a stranger, a wrong order, or other words of ours than we said.

    Args:
        message: With the remedy.
        public: How many silos there are and how many this one asks for, where that is why: numbers of silos
            tell nothing of rows.
    """

    code = "sum_roster"
    public = "the secure sum has other silos than it needs, or too few"

    def __init__(self, message: str, *, public: str | None = None) -> None:
        super().__init__(message)
        if public is not None:
            self.public = public


class RosterMismatchError(SumError):
    """A member's consent is not for the roster that was shown here: somebody was shown another."""

    code = "sum_roster_mismatch"


class ForgedSumError(SumError):
    """A member's signature, key or sealed seed was not made by that member for this sum."""

    code = "sum_forged"


class ReusedSumError(SumError):
    """What is asked for would use masks again, or sum the same values over another roster."""

    code = "sum_reused"


class FixedPointError(TrainingError):
    """A tensor holds a value that the sum's fixed-point numbers cannot hold."""

    code = "fixed_point"
