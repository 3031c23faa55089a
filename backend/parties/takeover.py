"""Which process may speak for a party, as one pure decision."""

from enum import StrEnum


class Entry(StrEnum):
    """How a process that logs in stands to the one before it."""

    FIRST = "first"
    RENEWAL = "renewal"
    TAKEOVER = "takeover"
    AFTER_SILENCE = "after_silence"
    REFUSED = "refused"

    @property
    def raises_epoch(self) -> bool:
        """Whether another process speaks from now on, so that the older one's sessions are closed."""
        return self in {Entry.FIRST, Entry.TAKEOVER, Entry.AFTER_SILENCE}


def decide(
    *, recorded_boot_id: str | None, other_is_live: bool, boot_id: str, previous_boot_id: str
) -> Entry:
    """Decide about a log-in whose signature was found right.

    Args:
        recorded_boot_id: Of the process that logged in last.
        other_is_live: Whether that process has an open session and was heard of lately.
        boot_id: Of the process that logs in.
        previous_boot_id: What it read from its state folder: only the owner of the folder knows it.
    """
    if recorded_boot_id is None:
        return Entry.FIRST
    if boot_id == recorded_boot_id:
        return Entry.RENEWAL
    if previous_boot_id == recorded_boot_id:
        return Entry.TAKEOVER
    return Entry.REFUSED if other_is_live else Entry.AFTER_SILENCE
