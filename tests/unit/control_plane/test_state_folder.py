from pathlib import Path

import pytest

from splitlearn.control_plane.errors import FolderInUseError
from splitlearn.control_plane.state_folder import Boots, StateFolder
from splitlearn.errors import StorageError
from splitlearn.identity import ExposedKeyFileError

JOB = "c1f73429-3b73-4f6e-9fec-9e0b598202c9"


class TestLocked:
    def test_admits_one(self, state: StateFolder) -> None:
        with (
            state.locked(),
            pytest.raises(FolderInUseError, match="stop it, or choose another folder"),
            StateFolder(state.path).locked(),
        ):
            pass

    def test_admits_the_next(self, state: StateFolder) -> None:
        with state.locked():
            pass
        with state.locked():
            pass


class TestSigningKey:
    def test_stays_the_same(self, state: StateFolder) -> None:
        assert state.signing_key().public_key == StateFolder(state.path).signing_key().public_key

    def test_is_for_its_owner_alone(self, state: StateFolder) -> None:
        state.signing_key()
        assert (state.path / "party.key").stat().st_mode & 0o777 == 0o600

    def test_refuses_one_that_others_may_read(self, state: StateFolder) -> None:
        state.signing_key()
        (state.path / "party.key").chmod(0o644)
        with pytest.raises(ExposedKeyFileError):
            state.signing_key()


class TestEpochs:
    def test_begin_at_none(self, state: StateFolder) -> None:
        assert state.highest_epoch(JOB) == 0

    def test_outlive_the_process(self, state: StateFolder) -> None:
        assert state.note_epoch(JOB, 3)
        assert StateFolder(state.path).highest_epoch(JOB) == 3

    def test_a_lower_one_is_outdated(self, state: StateFolder) -> None:
        state.note_epoch(JOB, 3)
        assert not state.note_epoch(JOB, 2)
        assert state.highest_epoch(JOB) == 3

    def test_the_same_one_is_not(self, state: StateFolder) -> None:
        state.note_epoch(JOB, 3)
        assert state.note_epoch(JOB, 3)

    def test_replicas_have_their_own(self, state: StateFolder) -> None:
        state.note_epoch(JOB, 3, replica=1)
        assert state.highest_epoch(JOB) == 0

    def test_a_damaged_file_is_named(self, state: StateFolder) -> None:
        state.note_epoch(JOB, 3)
        (state.path / "epochs" / f"{JOB}.0").write_text("three")
        with pytest.raises(StorageError, match="is damaged"):
            state.highest_epoch(JOB)


class TestBoots:
    def test_outlive_the_process(self, state: StateFolder) -> None:
        boots = Boots(last="0" * 32, trying="1" * 32)
        state.write_boots(boots)
        assert StateFolder(state.path).boots() == boots

    def test_begin_at_none(self, state: StateFolder) -> None:
        assert state.boots() == Boots()


class TestEnrolled:
    def test_says_that_an_invitation_is_needed(self, state: StateFolder) -> None:
        with pytest.raises(StorageError, match="enrol first, with an invitation"):
            state.enrolled()

    def test_a_full_or_forbidden_disk_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StorageError, match="choose another"):
            StateFolder(tmp_path / "file" / "state").signing_key()
