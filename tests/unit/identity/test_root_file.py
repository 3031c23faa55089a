import json
import os
from pathlib import Path

import pytest

from splitlearn.errors import StorageError
from splitlearn.identity import ExposedKeyFileError, FederationRoot, MalformedKeyFileError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "root.json"


class TestSave:
    def test_survives_a_restart(self, root: FederationRoot, path: Path) -> None:
        root.save(path)
        assert FederationRoot.load(path).public_key == root.public_key

    def test_only_the_owner_may_read_it_whatever_the_umask(self, root: FederationRoot, path: Path) -> None:
        before = os.umask(0)
        try:
            root.save(path)
        finally:
            os.umask(before)
        assert path.stat().st_mode & 0o777 == 0o600

    def test_leaves_no_other_file(self, root: FederationRoot, path: Path) -> None:
        root.save(path)
        assert list(path.parent.iterdir()) == [path]

    def test_never_overwrites_a_root(
        self, root: FederationRoot, other_root: FederationRoot, path: Path
    ) -> None:
        root.save(path)
        with pytest.raises(StorageError, match="never overwritten"):
            other_root.save(path)
        assert FederationRoot.load(path).public_key == root.public_key

    def test_leaves_nothing_behind_when_the_disk_fails(
        self, root: FederationRoot, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("splitlearn.identity.key_file.os.fsync", full)
        with pytest.raises(StorageError, match="No space left"):
            root.save(path)
        assert list(path.parent.iterdir()) == []

    def test_says_that_the_folder_is_missing(self, root: FederationRoot, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="No such file"):
            root.save(tmp_path / "nowhere" / "root.json")


class TestLoad:
    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o666])
    def test_refuses_a_file_that_others_may_use(self, root: FederationRoot, path: Path, mode: int) -> None:
        root.save(path)
        path.chmod(mode)
        with pytest.raises(ExposedKeyFileError, match="chmod 600"):
            FederationRoot.load(path)

    def test_says_that_the_file_is_missing(self, path: Path) -> None:
        with pytest.raises(StorageError, match="No such file"):
            FederationRoot.load(path)

    def test_refuses_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="directory"):
            FederationRoot.load(tmp_path)

    @pytest.mark.parametrize(
        "content",
        [b"", b"\xff", b"[]", b"{}", b"7", b"[" * 4000, b"x" * 5000, b'{"private_key": "zz"}'],
        ids=["empty", "bytes", "list", "object", "number", "deep", "long", "hex"],
    )
    def test_refuses_other_content(self, path: Path, content: bytes) -> None:
        path.touch(mode=0o600)
        path.write_bytes(content)
        with pytest.raises(MalformedKeyFileError):
            FederationRoot.load(path)

    @pytest.mark.parametrize("field", ["format", "fingerprint", "private_key"])
    def test_refuses_a_damaged_field(self, root: FederationRoot, path: Path, field: str) -> None:
        root.save(path)
        fields = json.loads(path.read_bytes())
        fields[field] = fields[field][:-1] + ("0" if fields[field][-1] != "0" else "1")
        path.write_text(json.dumps(fields))
        with pytest.raises(MalformedKeyFileError):
            FederationRoot.load(path)

    def test_errors_show_no_part_of_the_key(self, root: FederationRoot, path: Path) -> None:
        root.save(path)
        secret = json.loads(path.read_bytes())["private_key"]
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(MalformedKeyFileError) as caught:
            FederationRoot.load(path)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__
        assert secret[:16] not in str(caught.value) + repr(root)
