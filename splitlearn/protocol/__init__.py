"""The conversation between a silo and the trunk's worker, without I/O.

Modelled as in h11 and websockets: bytes in, commands in, events out, bytes out; what may be said when
is a table (:mod:`splitlearn.protocol.states`).
"""

from splitlearn.protocol.conversation import DEFAULT_WINDOW, GENERATION_PHASES, SERVED_PHASES, Conversation
from splitlearn.protocol.delivery import Position
from splitlearn.protocol.errors import (
    IllegalMessageError,
    MalformedMessageError,
    PhaseRefusedError,
    ResumeImpossibleError,
    WindowExceededError,
    WrongStepError,
)
from splitlearn.protocol.events import Established, Event, Received
from splitlearn.protocol.generation import MAX_CACHES
from splitlearn.protocol.silo import SiloProtocol
from splitlearn.protocol.states import SILO_TABLE, TRUNK_TABLE, State
from splitlearn.protocol.trunk import TrunkProtocol

__all__ = [
    "DEFAULT_WINDOW",
    "GENERATION_PHASES",
    "MAX_CACHES",
    "SERVED_PHASES",
    "SILO_TABLE",
    "TRUNK_TABLE",
    "Conversation",
    "Established",
    "Event",
    "IllegalMessageError",
    "MalformedMessageError",
    "PhaseRefusedError",
    "Position",
    "Received",
    "ResumeImpossibleError",
    "SiloProtocol",
    "State",
    "TrunkProtocol",
    "WindowExceededError",
    "WrongStepError",
]
