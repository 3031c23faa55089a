"""What keeps a server from starting: a sentence, an exit code, and nothing left behind."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.db import Database, upgrade
from backend.db.schema import downgrade
from backend.embedded.stack import _held
from tests.unit.backend.cli.conftest import Terminal


@pytest.fixture
def state(tmp_path: Path, terminal: Terminal) -> Path:
    state = tmp_path / "state"
    terminal.patch.setenv("TRUNKLINE_STATE_DIR", str(state))
    terminal.patch.setenv("TRUNKLINE_PORT", "0")
    return state


@pytest.fixture
def used_port() -> Iterator[str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield str(listener.getsockname()[1])


def database(state: Path) -> Database:
    state.mkdir(exist_ok=True)
    return Database(f"sqlite:///{state / 'trunkline.db'}")


def left(state: Path) -> set[str]:
    return {path.name for path in state.glob("*") if not path.name.startswith("trunkline.db")}


class TestSettings:
    @pytest.mark.parametrize("command", ["api", "up"])
    def test_of_a_broker_that_is_not_served(self, terminal: Terminal, state: Path, command: str) -> None:
        terminal.patch.setenv("TRUNKLINE_BROKER_URL", "amqp://me:s3cret@host")
        ended = terminal(command)
        assert (ended.exit_code, ended.out, ended.err.count("\n")) == (2, "", 1)
        assert ended.err.startswith(
            "trunkline: TRUNKLINE_BROKER_URL: the broker 'amqp' is not served; use redis"
        )
        assert "s3cret" not in ended.err
        assert not state.exists()

    @pytest.mark.usefixtures("state")
    def test_out_of_range_are_named_with_value_and_limit(self, terminal: Terminal) -> None:
        terminal.patch.setenv("TRUNKLINE_PORT", "99999")
        ended = terminal("api")
        assert ended.exit_code == 2
        assert ended.err.startswith("trunkline: TRUNKLINE_PORT=99999: must be less than or equal to 65535; ")

    def test_of_a_token_that_lives_too_long_name_the_flag(self, terminal: Terminal) -> None:
        ended = terminal("tokens", "add", "huge", "--days", "99999999")
        assert (ended.exit_code, "--days" in ended.err, "3650" in ended.err) == (2, True, True)


class TestPortInUse:
    def test_of_the_api(self, terminal: Terminal, state: Path, used_port: str) -> None:
        terminal("db", "upgrade")
        terminal.patch.setenv("TRUNKLINE_PORT", used_port)
        ended = terminal("api")
        assert (ended.exit_code, ended.out) == (10, "")
        assert f"127.0.0.1:{used_port}: Address already in use" in ended.err
        assert "TRUNKLINE_PORT" in ended.err
        assert "password" not in ended.err, "the first start, which shows it once, has not happened"
        assert left(state) == set()

    @pytest.mark.parametrize("flag", ["--port", "--gateway-port"])
    def test_of_up(self, terminal: Terminal, state: Path, used_port: str, flag: str) -> None:
        ended = terminal("up", flag, used_port)
        assert (ended.exit_code, ended.out, flag in ended.err) == (10, "", True)
        assert left(state) == {"up.lock"}


class TestUp:
    def test_without_a_folder_of_models(self, terminal: Terminal, state: Path, tmp_path: Path) -> None:
        absent = tmp_path / "absent"
        ended = terminal("up", "--models-from", str(absent))
        assert (ended.exit_code, ended.out, f"{absent} is no folder" in ended.err) == (2, "", True)
        assert left(state) == set()

    @pytest.mark.slow
    def test_ends_where_a_worker_refuses_its_settings(self, terminal: Terminal, state: Path) -> None:
        ended = terminal("up", "--device", "bogus", "--port", "0", "--gateway-port", "0")
        assert (ended.exit_code, "no device is called 'bogus'" in ended.err) == (2, True)
        assert left(state) & {"up.json"} == set()


class TestDatabase:
    def test_that_is_not_there_is_not_made_by_a_check(self, terminal: Terminal, state: Path) -> None:
        ended = terminal("db", "check")
        assert (ended.exit_code, "trunkline db upgrade" in ended.err) == (5, True)
        assert not state.exists()

    def test_behind_names_the_command(self, terminal: Terminal, state: Path) -> None:
        behind = database(state)
        upgrade(behind)
        downgrade(behind, revision="-1")
        behind.dispose()
        for command in (("api",), ("db", "check"), ("organizations", "add", "clinic", "--admin", "anna")):
            ended = terminal(*command)
            assert (ended.exit_code, ended.out) == (5, ""), command
            assert "run: trunkline db upgrade" in ended.err, command
        assert terminal("db", "upgrade").exit_code == 0
        assert terminal("db", "check", "--json").exit_code == 0

    def test_ahead_names_what_is_needed_and_is_left_alone(self, terminal: Terminal, state: Path) -> None:
        ahead = database(state)
        upgrade(ahead)
        with ahead.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        ahead.dispose()
        for command in (
            ("api",),
            ("db", "upgrade"),
            ("db", "check"),
            ("up", "--port", "0", "--gateway-port", "0"),
        ):
            ended = terminal(*command)
            assert (ended.exit_code, ended.out) == (5, ""), command
            assert "revision 9999" in ended.err, command
            assert "install that version again" in ended.err, command
        assert left(state) <= {"up.lock"}

    @pytest.mark.usefixtures("state")
    def test_that_cannot_be_reached_is_named_without_its_password(self, terminal: Terminal) -> None:
        url = "postgresql://trunkline:s3cret@127.0.0.1:1/trunkline"
        terminal.patch.setenv("TRUNKLINE_DATABASE_URL", url)
        for command in (("api",), ("db", "upgrade"), ("up", "--port", "0", "--gateway-port", "0")):
            ended = terminal(*command)
            assert (ended.exit_code, "127.0.0.1:1" in ended.err) == (5, True), ended
            assert "TRUNKLINE_DATABASE_URL" in ended.err
            assert "s3cret" not in ended.err

    @pytest.mark.usefixtures("state")
    def test_of_another_kind_is_refused(self, terminal: Terminal) -> None:
        terminal.patch.setenv("TRUNKLINE_DATABASE_URL", "mysql://host/name")
        ended = terminal("api")
        assert (ended.exit_code, "postgresql://" in ended.err) == (5, True)


class TestFolder:
    def test_that_cannot_be_made_is_named(self, terminal: Terminal, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        terminal.patch.setenv("TRUNKLINE_STATE_DIR", str(tmp_path / "file" / "state"))
        for command in (("db", "upgrade"), ("db", "check"), ("up",), ("api",)):
            ended = terminal(*command)
            assert (ended.exit_code, ended.out, str(tmp_path / "file") in ended.err) == (5, "", True), ended

    def test_that_another_up_uses_is_left_to_it(self, terminal: Terminal, state: Path) -> None:
        with _held(state):
            ended = terminal("up", "--port", "0", "--gateway-port", "0")
        assert (ended.exit_code, "another trunkline up is running" in ended.err) == (5, True)
