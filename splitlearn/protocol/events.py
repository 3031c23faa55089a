"""What a conversation reports to the program that runs it."""

from dataclasses import dataclass

from splitlearn.protocol.delivery import Position
from splitlearn.wire import Message


@dataclass(frozen=True, slots=True)
class Established:
    """A sealed session stands; both sides have proved who they are.

    Attributes:
        resent_messages: How many messages of the window are sent again because the peer had not
            opened them on the connection before.
    """

    resent_messages: int


@dataclass(frozen=True, slots=True)
class Received:
    """A message of the peer was opened, checked and is legal now."""

    message: Message
    position: Position


Event = Established | Received
