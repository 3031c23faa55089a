"""Which process may speak for a party: the whole table."""

import pytest

from backend.parties.takeover import Entry, decide


class TestDecide:
    @pytest.mark.parametrize(
        ("recorded", "live", "boot", "previous", "expected"),
        [
            (None, False, "b", "", Entry.FIRST),
            ("a", True, "a", "", Entry.RENEWAL),
            ("a", False, "a", "", Entry.RENEWAL),
            ("a", True, "b", "a", Entry.TAKEOVER),
            ("a", False, "b", "a", Entry.TAKEOVER),
            ("a", False, "b", "", Entry.AFTER_SILENCE),
            ("a", False, "b", "x", Entry.AFTER_SILENCE),
            ("a", True, "b", "", Entry.REFUSED),
            ("a", True, "b", "x", Entry.REFUSED),
            ("a", True, "b", "b", Entry.REFUSED),
        ],
    )
    def test_follows_the_table(
        self, recorded: str | None, *, live: bool, boot: str, previous: str, expected: Entry
    ) -> None:
        entry = decide(recorded_boot_id=recorded, other_is_live=live, boot_id=boot, previous_boot_id=previous)
        assert entry is expected

    def test_only_another_process_raises_the_epoch(self) -> None:
        raising = {entry for entry in Entry if entry.raises_epoch}
        assert raising == {Entry.FIRST, Entry.TAKEOVER, Entry.AFTER_SILENCE}
