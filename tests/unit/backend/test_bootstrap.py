"""The first start, the second, and the starts that must not happen."""

import stat

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
        settings = Settings(database_url=SecretStr("postgresql://u:secret@host/db"))
        assert "secret" not in repr(settings)
        assert "secret" in settings.resolved_database_url

    def test_audience_has_no_slash_at_its_end(self) -> None:
        assert Settings(public_url="https://a.example/").audience == "https://a.example"
        assert Settings(host="10.0.0.1", port=99).audience == "http://10.0.0.1:99"
