"""What the API needs to serve, named when it is not there."""

from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import text

from splitlearn.processes import free_port
from tests.unit.backend.conftest import ON_SQLITE_ALONE, World


def change(world: World, **settings: object) -> None:
    changed = world.server.settings.model_copy(update=settings)
    object.__setattr__(world.server, "settings", changed)


def readiness(world: World) -> tuple[int, str]:
    answer = world.anybody.client.get("/readyz")
    return answer.status_code, answer.json().get("message", "")


class TestReadiness:
    def test_is_there_with_everything(self, world: World) -> None:
        assert readiness(world) == (200, "")

    def test_names_migrations_that_were_not_run(self, world: World) -> None:
        engine = world.server.database.engine
        with engine.begin() as connection:
            head = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one()
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
        try:
            status, message = readiness(world)
        finally:  # PostgreSQL's is the next test's, too
            with engine.begin() as connection:
                connection.execute(text("UPDATE alembic_version SET version_num = :head"), {"head": head})
        assert status == 503
        assert "migrations: the database is at revision 0001" in message
        assert "trunkline db upgrade" in message

    @ON_SQLITE_ALONE
    def test_names_a_redis_that_does_not_answer_but_not_its_password(self, world: World) -> None:
        port = free_port("127.0.0.1")
        change(world, broker_url=SecretStr(f"redis://:secret@127.0.0.1:{port}/0"))
        status, message = readiness(world)
        assert status == 503
        assert message == "broker: Redis does not answer (ConnectionError)"

    @ON_SQLITE_ALONE
    def test_is_there_with_a_redis_that_answers(self, world: World, redis_url: str) -> None:
        change(world, broker_url=SecretStr(redis_url))
        assert readiness(world) == (200, "")

    @ON_SQLITE_ALONE
    def test_names_a_broker_that_is_not_served(self, world: World) -> None:
        change(world, broker_url=SecretStr("amqp://127.0.0.1"))
        status, message = readiness(world)
        assert (status, message[:28]) == (503, "broker: the broker 'amqp' is")

    @ON_SQLITE_ALONE
    def test_names_a_broker_folder_that_cannot_be_made(self, world: World, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        change(world, state_dir=tmp_path / "file")
        status, message = readiness(world)
        assert status == 503
        assert message.startswith("broker: cannot make the broker's folder")
