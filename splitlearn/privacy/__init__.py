"""What keeps one silo's blocks from everybody else: the secure sum.

Silos average their blocks so that whoever adds them up sees neither one silo's blocks nor the average, and
no silo sees another's (docs/protocol.md, section 14). Sans-I/O and torch-free: :class:`SiloSum` and
:class:`SumServer` take messages and give messages; a program carries them. After Bonawitz et al. 2017
(doi 10.1145/3133956.3133982) without the recovery of masks: who drops out once vectors are sent ends the sum.
"""

from splitlearn.privacy.errors import (
    FixedPointError,
    ForgedSumError,
    ReusedSumError,
    RosterMismatchError,
    RosterRefusedError,
    SumError,
    SumMessageError,
)
from splitlearn.privacy.fixed_point import DEFAULT_FRACTION_BITS, decode, encode, largest_word
from splitlearn.privacy.masks import CommonMask, PairwiseMasks
from splitlearn.privacy.record import SumRecord
from splitlearn.privacy.roster import MIN_SILOS, Roster, SumPlace, refuse_few_silos
from splitlearn.privacy.server import PARTS_AHEAD, ServerState, SumServer
from splitlearn.privacy.silo import SiloSum, SumState

__all__ = [
    "DEFAULT_FRACTION_BITS",
    "MIN_SILOS",
    "PARTS_AHEAD",
    "CommonMask",
    "FixedPointError",
    "ForgedSumError",
    "PairwiseMasks",
    "ReusedSumError",
    "Roster",
    "RosterMismatchError",
    "RosterRefusedError",
    "ServerState",
    "SiloSum",
    "SumError",
    "SumMessageError",
    "SumPlace",
    "SumRecord",
    "SumServer",
    "SumState",
    "decode",
    "encode",
    "largest_word",
    "refuse_few_silos",
]
