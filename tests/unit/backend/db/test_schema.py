"""The migrations make exactly what the models say, on both databases."""

from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from backend.db import Database, SchemaVersionError, check_schema, downgrade, schema, upgrade
from backend.db.models import Base
from splitlearn.errors import StorageError


def _tables(database: Database) -> set[str]:
    return set(inspect(database.engine).get_table_names()) - {"alembic_version"}


class TestUpgrade:
    def test_makes_every_table_from_empty(self, empty_database: Database) -> None:
        upgrade(empty_database)
        assert _tables(empty_database) == set(Base.metadata.tables)

    def test_leaves_no_difference_to_the_models(self, database: Database) -> None:
        schema.check_models(database)

    def test_makes_the_same_check_constraints_as_the_models(self, database: Database) -> None:
        inspector = inspect(database.engine)
        for table in Base.metadata.tables.values():
            named = {check["name"] for check in inspector.get_check_constraints(table.name)}
            modelled = {str(check.name) for check in table.constraints if "ck_" in str(check.name)}
            assert named == modelled, table.name

    def test_again_changes_nothing(self, database: Database) -> None:
        upgrade(database)
        check_schema(database)

    def test_history_has_one_head(self) -> None:
        assert len(ScriptDirectory(str(schema.migrations_folder())).get_heads()) == 1


class TestDowngrade:
    def test_to_base_removes_every_table(self, fresh_database: Database) -> None:
        downgrade(fresh_database, revision="base")
        assert _tables(fresh_database) == set()

    def test_and_upgrade_restores_every_table(self, fresh_database: Database) -> None:
        downgrade(fresh_database, revision="base")
        upgrade(fresh_database)
        check_schema(fresh_database)
        assert _tables(fresh_database) == set(Base.metadata.tables)


class TestCheckSchema:
    def test_refuses_an_empty_database(self, empty_database: Database) -> None:
        with pytest.raises(SchemaVersionError, match="trunkline db upgrade"):
            check_schema(empty_database)

    def test_refuses_a_file_that_is_not_there_and_makes_none(self, tmp_path: Path) -> None:
        path = tmp_path / "none" / "trunkline.db"
        with pytest.raises(SchemaVersionError, match=f"no database {path} yet; make it by: trunkline db up"):
            check_schema(Database(f"sqlite:///{path}"))
        assert not path.exists()

    def test_refuses_a_newer_database(self, fresh_database: Database) -> None:
        with fresh_database.write() as session:
            session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        with pytest.raises(SchemaVersionError, match=r"9999.*newer version"):
            check_schema(fresh_database)

    def test_says_where_an_unreachable_server_is_and_hides_its_password(self) -> None:
        database = Database("postgresql://trunkline:secret@127.0.0.1:1/trunkline")
        with pytest.raises(StorageError, match=r"127\.0\.0\.1:1/trunkline.*TRUNKLINE_DATABASE_URL") as caught:
            check_schema(database)
        assert "secret" not in caught.value.message
