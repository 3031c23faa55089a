"""Which of several gateways a conversation meets at. Pure: the same for both parties, at every process.

Rendezvous hashing: each conversation ranks all gateways by a hash and takes the first that is there, so that
one that goes away moves only its own conversations, and spreads them over all others.
"""

import hashlib
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from backend.gateway import Conversation


def choose(gateways: Collection[str], conversation: Conversation) -> str:
    """Return the gateway of a conversation.

    Args:
        gateways: Addresses of those that may be taken; at least one.
        conversation: Who meets there. The worker's name is no part of the choice: the epoch tells it.
    """
    told = conversation
    words = (told.job, str(told.replica), str(told.epoch), told.silo)

    def rank(url: str) -> bytes:
        return hashlib.sha256("\0".join((url, *words)).encode()).digest()

    return max(sorted(gateways), key=rank)


def present(
    gateways: Sequence[str], seen_at: dict[str, datetime], *, now: datetime, silence_seconds: float
) -> list[str]:
    """Return the gateways that are not known to be away.

    One that never named itself cannot be missed. When all are silent it is the control plane that was away,
    or its network: nothing is known of any, and all are taken.

    Args:
        gateways: Addresses of all.
        seen_at: When each that names itself asked last.
        now: The time.
        silence_seconds: So long may one be silent.
    """
    heard = now - timedelta(seconds=silence_seconds)
    there = [url for url in gateways if url not in seen_at or seen_at[url] >= heard]
    return there or list(gateways)
