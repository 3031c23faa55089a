"""Appending: in order, without a gap, also by several processes at once; and nothing but appending."""

import subprocess
import sys
import threading
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from backend.audit import record
from backend.audit.errors import AuditBrokenError, NoSignedHeadError
from backend.audit.export import everything, export, only, signed_head
from backend.audit.ledger import ensure_head
from backend.audit.service import OPERATOR
from backend.audit.verification import Verified, verify
from backend.db import Database
from backend.db.models import Organization
from backend.encoding import from_base64, to_base64
from backend.federation.service import find_federation
from splitlearn.identity import CertificateKind, FederationRoot, PublicKey
from tests.unit.backend.conftest import ON_SQLITE_ALONE, World

NUM_EACH = 25
APPENDER = """
import sys
from datetime import UTC, datetime
from backend.audit import record
from backend.audit.service import OPERATOR
from backend.db import Database

url, name, count = sys.argv[1:]
database = Database(url)
sys.stdin.readline()  # all begin together
for number in range(int(count)):
    with database.write() as session:
        for part in range(2):
            record(session, OPERATOR, at=datetime.now(tz=UTC), action="test", subject_kind="test",
                   subject_name=f"{name}-{number}-{part}")
"""


def lines(database: Database) -> list[bytes]:
    whole = b"".join(export(database, signed_head(database), everything))
    return whole.splitlines(keepends=True)


def root_of(database: Database) -> PublicKey:
    with database.read() as session:
        federation = find_federation(session)
    assert federation is not None
    return PublicKey(federation.root_public_key)


def verified(database: Database) -> Verified:
    return verify(lines(database), root_of(database))


def append(database: Database, world: World, name: str, *, then: str | None = None) -> None:
    with database.write() as session:
        record(session, OPERATOR, at=world.clock(), action="test", subject_kind="test", subject_name=name)
        if then is not None:
            session.execute(text(then))


def tamper(database: Database, statement: str) -> None:
    """What somebody does who may drop triggers."""
    with database.engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SET session_replication_role = replica"))
            connection.execute(text(statement))
            connection.execute(text("SET session_replication_role = DEFAULT"))
            return
        found = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")).all()
        for name, _ in found:
            connection.execute(text(f"DROP TRIGGER {name}"))
        connection.execute(text(statement))
        for _, sql in found:
            connection.execute(text(sql))


class TestAppend:
    def test_first_start_leaves_a_whole_chain(self, world: World) -> None:
        database = world.server.database
        assert verified(database).num_rows == len(world.audit()) + 1  # the root's signature is the server's

    def test_row_of_a_transaction_that_failed_leaves_no_gap(self, world: World) -> None:
        database = world.server.database
        before = verified(database).num_rows
        with pytest.raises(DBAPIError):
            append(database, world, "a", then="SELECT * FROM nowhere")
        append(database, world, "next")
        assert verified(database).num_rows == before + 1

    def test_of_refusals_is_kept(self, world: World) -> None:
        before = verified(world.server.database).num_rows
        world.anybody.refused("POST", "/sign-in", {"name": "admin", "password": "guess"})
        assert verified(world.server.database).num_rows == before + 1

    def test_in_threads_of_two_engines_stays_one_chain(self, world: World) -> None:
        database = world.server.database
        other = Database(database.engine.url.render_as_string(hide_password=False))
        before = verified(database).num_rows
        engines = (database, other)

        def work(number: int) -> None:
            for step in range(NUM_EACH):
                append(engines[number % 2], world, f"{number}-{step}")

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        other.dispose()
        assert verified(database).num_rows == before + 4 * NUM_EACH

    @pytest.mark.slow
    def test_by_several_processes_stays_one_chain(self, world: World) -> None:
        database = world.server.database
        url = database.engine.url.render_as_string(hide_password=False)
        before = verified(database).num_rows
        processes = [
            subprocess.Popen(  # noqa: S603 - our own interpreter and words
                [sys.executable, "-c", APPENDER, url, str(number), str(NUM_EACH)],
                stdin=subprocess.PIPE,
                text=True,
            )
            for number in range(3)
        ]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.close()
        assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
        assert verified(database).num_rows == before + 3 * NUM_EACH * 2


class TestTampering:
    @pytest.mark.parametrize("statement", ["UPDATE audit_rows SET action = 'x'", "DELETE FROM audit_rows"])
    def test_is_refused_by_the_database(self, world: World, statement: str) -> None:
        database = world.server.database
        with pytest.raises(DBAPIError, match="only ever added"), database.engine.begin() as connection:
            connection.execute(text(statement))
        verified(database)

    @pytest.mark.parametrize("tables", ["audit_rows", "audit_head", "organizations CASCADE"])
    def test_emptying_is_refused_too(self, world: World, tables: str) -> None:
        database = world.server.database
        if database.engine.dialect.name != "postgresql":
            pytest.skip("SQLite knows no TRUNCATE")
        with pytest.raises(DBAPIError, match="only ever added"), database.engine.begin() as connection:
            connection.execute(text(f"TRUNCATE {tables}"))
        verified(database)

    @pytest.mark.parametrize(
        ("statement", "said"),
        [
            ("UPDATE audit_rows SET actor_name = 'somebody' WHERE id = 4", "row 4 is not"),
            ("UPDATE audit_rows SET details = '{}' WHERE action = 'create_user'", "row 3 is not"),
            ("UPDATE audit_rows SET organization_id = NULL WHERE id = 2", "row 2 is not"),
            ("DELETE FROM audit_rows WHERE id = 2", "row 3 stands where row 2 belongs"),
            ("DELETE FROM audit_rows WHERE id >= 4", "row 4 is missing"),
            ("DELETE FROM audit_rows", "row 1 is missing"),
            ("UPDATE audit_head SET number = number - 1", "made anew"),
            ("UPDATE audit_head SET signed_at = '2026-03-02 12:00:00+00:00'", "is not signed"),
        ],
    )
    def test_past_the_database_is_found(self, world: World, statement: str, said: str) -> None:
        database = world.server.database
        append(database, world, "one more")
        tamper(database, statement)
        with pytest.raises(AuditBrokenError, match=said):
            verified(database)


class TestHead:
    @ON_SQLITE_ALONE
    def test_waits_for_an_offline_root_and_is_signed_with_its_word(
        self, offline_world: tuple[World, FederationRoot]
    ) -> None:
        world, root = offline_world
        assert world.admin.refused("GET", "/audit/export") == (503, "no_signed_head")
        with pytest.raises(NoSignedHeadError):
            signed_head(world.server.database)
        request = world.admin.ok("GET", "/federation/spec-signer")
        certificate = root.issue(
            PublicKey(from_base64(request["public_key"], field="public_key")),
            kind=CertificateKind.SPEC_SIGNER,
            name=request["name"],
            not_before=world.clock(),
            not_after=world.clock() + timedelta(days=30),
        )
        body = {"certificate": to_base64(certificate.to_bytes())}
        world.admin.ok("PUT", "/federation/spec-signer", body)
        verified(world.server.database)

    @ON_SQLITE_ALONE
    def test_is_not_signed_again_for_nothing(self, world: World) -> None:
        before = signed_head(world.server.database)
        world.clock.advance(hours=1)
        with world.server.database.write() as session:
            ensure_head(session, now=world.clock())
        assert signed_head(world.server.database) == before


class TestExport:
    def test_shows_an_organisation_its_own_content(self, world: World) -> None:
        database = world.server.database
        with database.write() as session:
            other = Organization(name="elsewhere", created_at=world.clock())
            session.add(other)
            session.flush()
            record(
                session,
                OPERATOR,
                at=world.clock(),
                action="test",
                subject_kind="test",
                subject_name="a-secret-of-elsewhere",
                organization_id=other.id,
            )
        whole = b"".join(export(database, signed_head(database), only(other.id)))
        mine = world.admin("GET", "/audit/export")
        assert mine.headers["content-type"].startswith("application/jsonl")
        assert b"a-secret-of-elsewhere" in whole
        assert b"a-secret-of-elsewhere" not in mine.content
        assert b"create_user" in mine.content
        assert b"create_user" not in whole
        for found in (whole, mine.content):
            assert verify(found.splitlines(keepends=True), root_of(database)).num_hidden > 0

    def test_grows_by_what_is_done_and_continues(self, world: World) -> None:
        database = world.server.database
        earlier = signed_head(database)
        world.admin.ok("POST", "/projects", {"name": "second"})
        found = verify(lines(database), root_of(database), earlier=earlier)
        assert found.num_rows == earlier.number + 1
