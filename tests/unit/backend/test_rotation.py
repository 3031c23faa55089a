"""New keys for silos, workers and the spec-signer; what is revoked and waits for the root; what ends soon."""

import base64
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from backend.audit.service import SERVER
from backend.db.models import PartyKind
from backend.federation.service import federation_of, trust_of
from backend.federation.signer_rotation import rotate_signer
from backend.jobs.signing import sign_jobs_anew
from backend.parties.expiry import warn_of_ends
from backend.parties.repository import find_party
from backend.parties.standing import is_out
from splitlearn.identity import (
    Certificate,
    CertificateKind,
    Context,
    FederationRoot,
    PublicKey,
    RevocationList,
    SigningKey,
    SpecSignature,
    rotated_statement,
    rotation_statement,
    verify_spec,
)
from tests.unit.backend.conftest import ON_SQLITE_ALONE, PartyProgram, World
from tests.unit.backend.jobs.conftest import Federation, federation_like_others
from tests.unit.backend.seeds import Seeds

KINDS = pytest.mark.parametrize("kind", ["silo", "worker"])


def text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def rotation(program: PartyProgram, new_key: SigningKey, **wrong: Any) -> dict[str, Any]:
    """What a party sends to have a new key certified.

    ``wrong``: keys that sign instead, as ``by_old`` and ``by_new``, and other fields of the statement.
    """
    nonce = program.api.ok("GET", "/login/nonce")["nonce"]
    by_old, by_new = wrong.pop("by_old", program.key), wrong.pop("by_new", new_key)
    fields = {
        "audience": program.invitation.url,
        "kind": program.invitation.kind,
        "name": program.invitation.name,
        "nonce": nonce,
        "old_key": program.key.public_key,
        "new_key": new_key.public_key,
        **wrong,
    }
    statement = rotation_statement(**fields)
    return {
        "kind": program.invitation.kind,
        "name": program.invitation.name,
        "nonce": nonce,
        "public_key": text(new_key.public_key.raw),
        "signature": text(by_old.sign(Context.KEY_ROTATION, statement)),
        "new_signature": text(by_new.sign(Context.KEY_ROTATION, statement)),
    }


def rotated(program: PartyProgram, key: SigningKey) -> dict[str, Any]:
    nonce = program.api.ok("GET", "/login/nonce")["nonce"]
    statement = rotated_statement(
        audience=program.invitation.url,
        kind=program.invitation.kind,
        name=program.invitation.name,
        nonce=nonce,
        key=key.public_key,
    )
    return {
        "kind": program.invitation.kind,
        "name": program.invitation.name,
        "nonce": nonce,
        "signature": text(key.sign(Context.KEY_ROTATED, statement)),
    }


def revoked_serials(world: World) -> set[int]:
    answer = world.anybody.ok("GET", "/federation")
    raw = answer["revocation_list"]
    return set() if raw is None else set(RevocationList.from_bytes(base64.b64decode(raw)).serials)


@KINDS
class TestParty:
    def test_works_with_the_old_key_until_the_new_one_is_in_use(self, world: World, kind: str) -> None:
        program, new_key = world.enrolled("north", kind), SigningKey.generate()
        before = world.admin.ok("GET", f"/{kind}s/north")
        session = world.anybody.as_(program.log_in()["token"])
        answer = world.anybody.ok("POST", "/rotation", rotation(program, new_key))
        certificate = Certificate.from_bytes(base64.b64decode(answer["certificate"]))
        assert certificate.public_key == new_key.public_key
        program.log_in()
        assert world.admin.ok("GET", f"/{kind}s/north")["is_rotating"] is True
        world.anybody.ok("POST", "/rotation/finish", rotated(program, new_key))
        after = world.admin.ok("GET", f"/{kind}s/north")
        assert (after["serial"], after["is_rotating"]) == (str(certificate.serial), False)
        assert revoked_serials(world) == {int(before["serial"])}
        assert world.anybody.refused("POST", "/login", program.login()) == (401, "login_refused")
        session.ok("POST", "/session/heartbeat")
        replace(program, key=new_key, stored_boot_id=program.boot_id).log_in()
        session.ok("POST", "/session/heartbeat")  # the same process: nobody took over

    def test_may_say_everything_twice(self, world: World, kind: str) -> None:
        program, new_key = world.enrolled("north", kind), SigningKey.generate()
        first = world.anybody.ok("POST", "/rotation", rotation(program, new_key))
        assert world.anybody.ok("POST", "/rotation", rotation(program, new_key)) == first
        assert world.anybody.ok("POST", "/rotation/finish", rotated(program, new_key)) == first
        assert world.anybody.ok("POST", "/rotation/finish", rotated(program, new_key)) == first
        assert len(revoked_serials(world)) == 1

    def test_ends_the_rotation_by_a_log_in_with_the_new_key(self, world: World, kind: str) -> None:
        program, new_key = world.enrolled("north", kind), SigningKey.generate()
        program.log_in()
        world.anybody.ok("POST", "/rotation", rotation(program, new_key))
        replace(program, key=new_key).log_in()
        assert world.anybody.refused("POST", "/login", program.login()) == (401, "login_refused")
        assert world.audit()[0]["action"] == "rotate_key"

    @ON_SQLITE_ALONE
    def test_needs_both_keys_for_this_very_rotation(self, world: World, kind: str) -> None:
        program, new_key, other = world.enrolled("north", kind), SigningKey.generate(), SigningKey.generate()
        wrong: dict[str, Any]
        for wrong in (
            {"by_old": other},
            {"by_new": other},
            {"old_key": other.public_key},
            {"name": "south"},
            {"nonce": "another"},
            {"audience": "https://elsewhere.example"},
        ):
            body = rotation(program, new_key, **wrong)
            assert world.anybody.refused("POST", "/rotation", body) == (401, "login_refused"), wrong
        body = rotation(program, program.key)
        assert world.anybody.refused("POST", "/rotation", body) == (401, "login_refused")
        body = rotation(program, new_key)
        world.anybody.ok("POST", "/rotation", body)
        assert world.anybody.refused("POST", "/rotation", body) == (401, "nonce_refused")
        body = rotated(program, other)
        assert world.anybody.refused("POST", "/rotation/finish", body) == (401, "login_refused")

    @ON_SQLITE_ALONE
    def test_that_is_revoked_takes_no_new_key(self, world: World, kind: str) -> None:
        program, new_key = world.enrolled("north", kind), SigningKey.generate()
        world.anybody.ok("POST", "/rotation", rotation(program, new_key))
        world.admin.ok("POST", f"/{kind}s/north/revoke")
        assert len(revoked_serials(world)) == 2  # the one that was to follow as well
        body = rotation(program, new_key)
        assert world.anybody.refused("POST", "/rotation", body) == (403, "party_revoked")
        body = rotated(program, new_key)
        assert world.anybody.refused("POST", "/rotation/finish", body) == (401, "login_refused")

    @ON_SQLITE_ALONE
    def test_that_begins_again_with_another_key_drops_the_first(self, world: World, kind: str) -> None:
        program, first, second = world.enrolled("north", kind), SigningKey.generate(), SigningKey.generate()
        answer = world.anybody.ok("POST", "/rotation", rotation(program, first))
        world.anybody.ok("POST", "/rotation", rotation(program, second))
        serial = Certificate.from_bytes(base64.b64decode(answer["certificate"])).serial
        assert revoked_serials(world) == {serial}
        body = rotated(program, first)
        assert world.anybody.refused("POST", "/rotation/finish", body) == (401, "login_refused")


class TestOfflineRoot:
    def sign(self, root: FederationRoot, request: dict[str, Any], world: World) -> str:
        certificate = root.issue(
            PublicKey(base64.b64decode(request["public_key"])),
            kind=CertificateKind(request["kind"]),
            name=request["name"],
            not_before=world.clock(),
            not_after=world.clock() + timedelta(days=365),
        )
        return text(certificate.to_bytes())

    def enrolled(self, world: World, root: FederationRoot, name: str = "north") -> PartyProgram:
        program = world.invited(name)
        program.enrol()
        request = world.admin.ok("GET", f"/silos/{name}/certificate-request")
        world.admin.ok("PUT", f"/silos/{name}/certificate", {"certificate": self.sign(root, request, world)})
        return program

    def test_signs_a_new_key_while_the_old_one_works(
        self, offline_world: tuple[World, FederationRoot]
    ) -> None:
        world, root = offline_world
        program, new_key = self.enrolled(world, root), SigningKey.generate()
        assert world.anybody.ok("POST", "/rotation", rotation(program, new_key))["certificate"] is None
        body = rotated(program, new_key)
        assert world.anybody.refused("POST", "/rotation/finish", body) == (401, "login_refused")
        program.log_in()
        request = world.admin.ok("GET", "/silos/north/certificate-request")
        assert request["public_key"] == text(new_key.public_key.raw)
        body = {"certificate": self.sign(root, request, world)}
        world.admin.ok("PUT", "/silos/north/certificate", body)
        assert world.anybody.ok("POST", "/rotation", rotation(program, new_key)) == body
        old_serial = world.admin.ok("GET", "/silos/north")["serial"]
        world.anybody.ok("POST", "/rotation/finish", rotated(program, new_key))
        assert world.anybody.refused("POST", "/login", program.login()) == (401, "login_refused")
        [waiting] = world.admin.ok("GET", "/federation/revocations")["pending"]
        assert (waiting["kind"], waiting["name"], waiting["serial"]) == ("silo", "north", old_serial)
        signed = root.revoke([int(old_serial)], issued_at=world.clock(), previous=None)
        world.admin.ok("PUT", "/federation/revocations", {"revocation_list": text(signed.to_bytes())})
        assert world.admin.ok("GET", "/federation/revocations")["pending"] == []
        assert world.admin.ok("GET", "/silos/north")["status"] == "enrolled"

    def test_shows_a_revocation_as_pending_until_it_signs(
        self, offline_world: tuple[World, FederationRoot]
    ) -> None:
        world, root = offline_world
        program = self.enrolled(world, root)
        shown = world.admin.ok("POST", "/silos/north/revoke")
        assert (shown["status"], shown["revocation"]) == ("revoked", "pending_signature")
        assert world.anybody.refused("POST", "/login", program.login()) == (403, "party_revoked")
        signed = root.revoke([int(shown["serial"])], issued_at=world.clock(), previous=None)
        world.admin.ok("PUT", "/federation/revocations", {"revocation_list": text(signed.to_bytes())})
        [row] = world.admin.ok("GET", "/silos")["items"]
        assert row["revocation"] == "signed"

    def test_signs_for_the_servers_next_key_while_the_old_one_signs(
        self, offline_world: tuple[World, FederationRoot]
    ) -> None:
        world, root = offline_world
        request = world.admin.ok("GET", "/federation/spec-signer")
        body = {"certificate": self.sign(root, request, world)}
        world.admin.ok("PUT", "/federation/spec-signer", body)
        waiting = world.admin.ok("POST", "/federation/spec-signer/rotation")
        assert waiting["certificate"] is None
        assert waiting["public_key"] != request["public_key"]
        assert waiting["current_until"] is not None
        assert world.admin.ok("POST", "/federation/spec-signer/rotation") == waiting
        for stale in (body, {"certificate": self.sign(root, request, world)}):
            refused = world.admin.refused("PUT", "/federation/spec-signer", stale)
            assert refused == (409, "certificate_refused")
        new = {"certificate": self.sign(root, waiting, world)}
        assert world.admin.ok("PUT", "/federation/spec-signer", new)["certificate"] == new["certificate"]
        [left] = world.admin.ok("GET", "/federation/revocations")["pending"]
        assert left["kind"] == "spec-signer"


@pytest.fixture
def federation(world: World, seeds: Seeds) -> Federation:
    return federation_like_others(world, seeds)


class TestSpecSigner:
    def test_signs_jobs_under_way_anew_and_is_believed(self, federation: Federation) -> None:
        world = federation.world
        job_id = federation.submit()
        old = self.certificate(federation, job_id)
        world.admin.ok("POST", "/federation/spec-signer/rotation")
        new = self.certificate(federation, job_id)
        assert new.serial != old.serial
        assert revoked_serials(world) == {old.serial}
        with world.server.database.read() as session:
            trust = trust_of(federation_of(session))
        spec, signature = self.shown(federation, job_id)
        verify_spec(spec, signature, trust=trust, now=world.clock())
        federation.submit(name="another")
        assert world.audit()[1]["action"] == "rotate_signer"

    def test_a_job_submitted_while_the_key_is_replaced_is_believed(self, federation: Federation) -> None:
        world = federation.world
        with ThreadPoolExecutor(1) as thread:
            with world.server.database.write() as session:
                rotate_signer(session, world.server.authority, days=9, actor=SERVER, now=world.clock())
                submitting = thread.submit(federation.submit, name="late")
                wait([submitting], timeout=0.3)  # enough to sign it by the old key, if nothing held it
                assert not submitting.done()
                sign_jobs_anew(session, now=world.clock())
            job_id = submitting.result(timeout=30)
        spec, signature = self.shown(federation, job_id)
        with world.server.database.read() as session:
            trust = trust_of(federation_of(session))
        verify_spec(spec, signature, trust=trust, now=world.clock())

    def shown(self, federation: Federation, job_id: str) -> tuple[bytes, SpecSignature]:
        jobs = federation.parties["north"].ok("GET", "/silo/jobs")["jobs"]
        job = next(job for job in jobs if job["id"] == job_id)
        return base64.b64decode(job["spec"]), SpecSignature.from_bytes(base64.b64decode(job["signature"]))

    def certificate(self, federation: Federation, job_id: str) -> Certificate:
        return self.shown(federation, job_id)[1].certificate


class TestExpiry:
    @KINDS
    def test_refuses_a_certificate_48_hours_after_its_end_at_the_latest(
        self, world: World, kind: str
    ) -> None:
        program = world.enrolled("north", kind)
        until = world.admin.ok("GET", f"/{kind}s/north")["certificate_until"]
        world.clock.advance(days=world.server.settings.certificate_days, hours=47, minutes=50)
        assert until < world.clock().isoformat()
        session = world.anybody.as_(program.log_in()["token"])
        session.ok("POST", "/session/heartbeat")
        world.clock.advance(minutes=10, seconds=1)  # the session would live for an hour
        assert session.refused("POST", "/session/heartbeat") == (401, "session_ended")
        assert world.anybody.refused("POST", "/login", program.login()) == (403, "certificate_expired")
        with world.server.database.read() as database:
            party = find_party(database, PartyKind(kind), "north")
        assert is_out(party, now=world.clock())  # what the gateway is told: it closes what is open
        assert not is_out(party, now=world.clock() - timedelta(seconds=2))

    def test_is_told_30_7_and_1_days_ahead_each_once(self, federation: Federation) -> None:
        world = federation.world
        assert self.warn(world) == 0
        assert world.admin.ok("GET", "/silos/north")["certificate_ends_soon"] is False
        world.clock.advance(days=world.server.settings.certificate_days - 30)
        parties = len(federation.programs)
        assert self.warn(world) == parties + 1  # the server's own as well
        assert self.warn(world) == 0
        for days in (23, 6):
            world.clock.advance(days=days)
            assert self.warn(world) == parties + 1
        with world.server.database.read() as session:
            kinds = session.connection().exec_driver_sql("SELECT kind FROM events").scalars().all()
        assert kinds.count("certificate_expires") == 3 * (parties + 1)

    def warn(self, world: World) -> int:
        with world.server.database.write() as session:
            return warn_of_ends(session, now=world.clock())
