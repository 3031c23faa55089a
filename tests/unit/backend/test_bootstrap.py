"""The first start, the second, and the starts that must not happen."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select

from backend.bootstrap import start
from backend.db.models import Membership, Organization, Project, User
from backend.federation.errors import RootChangedError
from backend.settings import Settings
from splitlearn.errors import StorageError
from splitlearn.identity import ExposedKeyFileError, FederationRoot
from tests.unit.backend.conftest import Clock

ROOT = Path(__file__).parents[3]


class TestStart:
    def test_first_makes_one_of_each_and_tells_the_password_once(
        self, settings: Settings, clock: Clock
    ) -> None:
        server, first = start(settings, clock=clock)
        assert first is not None
        assert first.password not in repr(first)
        with server.database.read() as session:
            counts = [
                session.scalars(select(func.count()).select_from(table)).one()
                for table in (Organization, Project, User, Membership)
            ]
        assert counts == [1, 1, 1, 1]
        server.database.dispose()

    def test_second_makes_nothing(self, settings: Settings, clock: Clock) -> None:
        one, _ = start(settings, clock=clock)
        two, again = start(settings, clock=clock)
        assert again is None
        assert one.authority.fingerprint == two.authority.fingerprint
        for server in (one, two):
            server.database.dispose()

    def test_root_is_for_its_owner_only(self, settings: Settings, clock: Clock) -> None:
        start(settings, clock=clock)[0].database.dispose()
        path = settings.resolved_root_file
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    def test_refuses_a_root_that_others_may_read(self, settings: Settings, clock: Clock) -> None:
        start(settings, clock=clock)[0].database.dispose()
        settings.resolved_root_file.chmod(0o644)
        with pytest.raises(ExposedKeyFileError):
            start(settings, clock=clock)

    def test_refuses_to_replace_a_lost_root(self, settings: Settings, clock: Clock) -> None:
        start(settings, clock=clock)[0].database.dispose()
        settings.resolved_root_file.unlink()
        with pytest.raises(StorageError, match=r"root\.key"):
            start(settings, clock=clock)
        assert not settings.resolved_root_file.exists()

    def test_refuses_another_root(self, settings: Settings, clock: Clock) -> None:
        server, _ = start(settings, clock=clock)
        server.database.dispose()
        settings.resolved_root_file.unlink()
        FederationRoot.generate().save(settings.resolved_root_file)
        with pytest.raises(RootChangedError, match="is pinned to the federation root") as caught:
            start(settings, clock=clock)
        assert str(server.authority.fingerprint) in str(caught.value)


class TestSettings:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"public_url": "trunkline.example"},
            {"root_public_key": "00" * 32},
            {"root_public_key": "zz"},
            {"port": 70_000},
            {"root_public_key": "11" * 32, "root_file": "root.key"},
        ],
    )
    def test_refuses_wrong_values(self, wrong: dict[str, object]) -> None:
        with pytest.raises(ValueError, match="validation error"):
            Settings.model_validate(wrong)

    def test_never_shows_the_database_password(self) -> None:
        settings = Settings(database_url=SecretStr("postgresql://u:pa55phrase@host/db"))
        assert "pa55phrase" not in repr(settings)
        assert "pa55phrase" in settings.resolved_database_url

    def test_audience_has_no_slash_at_its_end(self) -> None:
        assert Settings(public_url="https://a.example/").audience == "https://a.example"
        assert Settings(host="10.0.0.1", port=99).audience == "http://10.0.0.1:99"


class TestTwoFirstStartsAtOnce:
    def test_make_one_root_and_one_admin(self, settings: Settings, tmp_path: Path) -> None:
        """Both wait, as processes of their own, until the other is there as well."""
        begin = tmp_path / "begin"
        environment = {
            "PATH": os.defpath,
            "PYTHONPATH": str(ROOT),
            "TRUNKLINE_STATE_DIR": str(settings.state_dir),
            "TRUNKLINE_DATABASE_URL": settings.resolved_database_url,
        }
        both = [
            subprocess.Popen(  # noqa: S603 - our own interpreter and words
                [sys.executable, "-c", _START, str(begin)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        for process in both:
            assert process.stdout is not None
            assert process.stdout.readline() == "waits\n", process.communicate()
        begin.touch()
        ended = [process.communicate(timeout=60) for process in both]
        assert [process.returncode for process in both] == [0, 0], ended
        said = [json.loads(out) for out, _ in ended]
        assert sorted(answer["first"] for answer in said) == [False, True]
        assert said[0]["root"] == said[1]["root"]


_START = """
import json, sys, time
from pathlib import Path
from backend.bootstrap import start
from backend.settings import Settings

print("waits", flush=True)
while not Path(sys.argv[1]).exists():
    time.sleep(0.001)
server, first = start(Settings())
print(json.dumps({"first": first is not None, "root": str(server.authority.fingerprint)}))
"""
