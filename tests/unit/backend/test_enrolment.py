"""Invitations and enrolment, with an embedded and with an offline root."""

import base64
from datetime import timedelta
from typing import Any

import pytest

from splitlearn.identity import (
    Certificate,
    CertificateKind,
    FederationRoot,
    Fingerprint,
    Invitation,
    PublicKey,
    RevocationList,
    SigningKey,
    TrustStore,
)
from tests.unit.backend.conftest import ON_SQLITE_ALONE, PartyProgram, World

KINDS = pytest.mark.parametrize("kind", ["silo", "worker"])


def _federation_trust(world: World) -> TrustStore:
    federation = world.anybody.ok("GET", "/federation")
    key = PublicKey(base64.b64decode(federation["root_public_key"]))
    trust = TrustStore.pinned(federation["fingerprint"], key)
    if federation["revocation_list"]:
        trust.update(RevocationList.from_bytes(base64.b64decode(federation["revocation_list"])))
    return trust


class TestInvite:
    @KINDS
    def test_text_names_party_server_and_root(self, world: World, kind: str) -> None:
        answer = world.admin.ok("POST", f"/{kind}s/invitations", {"name": "north"})
        invitation = Invitation.parse(answer["invitation"])
        assert (invitation.kind, invitation.name) == (CertificateKind(kind), "north")
        assert invitation.url == "https://trunkline.example"
        assert str(invitation.fingerprint) == answer["fingerprint"]
        assert answer["fingerprint"] == world.anybody.ok("GET", "/federation")["fingerprint"]

    def test_secret_is_not_shown_again_nor_stored(self, world: World) -> None:
        invitation = world.invited().invitation
        listed = world.admin("GET", "/silos/invitations").text
        assert '"north"' in listed
        for form in (invitation.secret.hex(), base64.b64encode(invitation.secret).decode()):
            assert form not in listed

    def test_refuses_a_name_that_is_enrolled(self, world: World) -> None:
        world.enrolled("north")
        assert world.admin.refused("POST", "/silos/invitations", {"name": "north"}) == (409, "name_taken")

    def test_a_worker_may_have_a_silos_name(self, world: World) -> None:
        world.enrolled("north", "silo")
        world.enrolled("north", "worker")

    @ON_SQLITE_ALONE
    @pytest.mark.parametrize("name", ["", "North", "a b", "-", "x" * 65, "nörd"])
    def test_refuses_what_is_no_name(self, world: World, name: str) -> None:
        refused = world.admin.refused("POST", "/silos/invitations", {"name": name})
        assert refused == (422, "invalid_request")


class TestEnrol:
    @KINDS
    def test_gives_a_certificate_that_the_pinned_root_signed(self, world: World, kind: str) -> None:
        program = world.invited("north", kind)
        answer = program.enrol()
        certificate = Certificate.from_bytes(base64.b64decode(answer["certificate"]))
        assert certificate.public_key == program.key.public_key
        _federation_trust(world).verify(
            certificate, kind=CertificateKind(kind), name="north", now=world.clock()
        )
        program.invitation.fingerprint.check(PublicKey(base64.b64decode(answer["root_public_key"])))
        shown = world.admin.ok("GET", f"/{kind}s/north")
        assert (shown["status"], shown["serial"]) == ("enrolled", str(certificate.serial))

    def test_again_with_the_same_key_gives_the_same_certificate(self, world: World) -> None:
        program = world.invited()
        assert program.enrol() == program.enrol()

    def test_again_with_another_key_is_refused(self, world: World) -> None:
        program = world.enrolled()
        thief = PartyProgram(world.anybody, program.invitation)
        assert world.anybody.refused("POST", "/enrolment", thief.enrolment()) == (409, "invitation_used")
        refused = next(row for row in world.audit() if row["outcome"] == "refused")
        assert (refused["action"], refused["subject_name"]) == ("enrol", "north")
        assert refused["details"] == {"code": "invitation_used"}

    def test_expired_invitation_is_refused(self, world: World) -> None:
        program = world.invited()
        world.clock.advance(hours=world.server.settings.invitation_hours)
        assert world.anybody.refused("POST", "/enrolment", program.enrolment()) == (410, "invitation_expired")

    def test_withdrawn_invitation_is_refused(self, world: World) -> None:
        program = world.invited()
        listed = world.admin.ok("GET", "/silos/invitations")["items"]
        world.admin.ok("DELETE", f"/silos/invitations/{listed[0]['id']}")
        refused = world.anybody.refused("POST", "/enrolment", program.enrolment())
        assert refused == (410, "invitation_withdrawn")
        assert world.admin.ok("GET", "/silos/invitations")["items"] == []

    def test_foreign_invitation_is_refused(self, world: World) -> None:
        program = world.invited()
        body = program.enrolment(secret=bytes(32))
        assert world.anybody.refused("POST", "/enrolment", body) == (404, "invitation_unknown")

    def test_wrong_root_is_refused(self, world: World) -> None:
        body = world.invited().enrolment(fingerprint=FederationRoot.generate().fingerprint)
        assert world.anybody.refused("POST", "/enrolment", body) == (409, "wrong_root")

    @ON_SQLITE_ALONE
    def test_mistyped_fingerprint_is_refused(self, world: World) -> None:
        body = {**world.invited().enrolment(), "fingerprint": "0000"}
        assert world.anybody.refused("POST", "/enrolment", body) == (422, "fingerprint")

    @ON_SQLITE_ALONE
    @pytest.mark.parametrize(
        "changes",
        [
            {"audience": "https://other.example"},
            {"kind": CertificateKind.WORKER},
            {"name": "south"},
        ],
    )
    def test_proof_for_something_else_is_refused(self, world: World, changes: dict[str, Any]) -> None:
        body = world.invited().enrolment(**changes)
        assert world.anybody.refused("POST", "/enrolment", body) == (403, "proof_refused")

    @ON_SQLITE_ALONE
    def test_proof_of_another_key_is_refused(self, world: World) -> None:
        program = world.invited()
        other = base64.b64encode(SigningKey.generate().public_key.raw).decode()
        body = {**program.enrolment(), "public_key": other}
        assert world.anybody.refused("POST", "/enrolment", body) == (403, "proof_refused")

    @ON_SQLITE_ALONE
    def test_weak_key_is_refused(self, world: World) -> None:
        body = {**world.invited().enrolment(), "public_key": base64.b64encode(bytes(32)).decode()}
        assert world.anybody.refused("POST", "/enrolment", body) == (422, "invalid_key")

    def test_second_invitation_for_a_name_that_has_enrolled_meanwhile_is_refused(self, world: World) -> None:
        first, second = world.invited(), world.invited()
        first.enrol()
        assert world.anybody.refused("POST", "/enrolment", second.enrolment()) == (409, "name_taken")


class TestRevoke:
    @KINDS
    def test_ends_sessions_and_stands_on_the_roots_list(self, world: World, kind: str) -> None:
        program = world.enrolled("north", kind)
        session = world.anybody.as_(program.log_in()["token"])
        session.ok("POST", "/session/heartbeat")
        revoked = world.admin.ok("POST", f"/{kind}s/north/revoke")
        assert revoked["status"] == "revoked"
        assert session.refused("POST", "/session/heartbeat") == (401, "session_ended")
        assert world.anybody.refused("POST", "/login", program.login()) == (403, "party_revoked")
        revocations = _federation_trust(world).revocations
        assert revocations is not None
        assert revocations.serials == (int(revoked["serial"]),)

    def test_lists_grow(self, world: World) -> None:
        for name in ("north", "south"):
            world.enrolled(name)
            world.admin.ok("POST", f"/silos/{name}/revoke")
        assert world.anybody.ok("GET", "/federation")["revocation_number"] == 2

    def test_again_is_not_found(self, world: World) -> None:
        world.enrolled()
        world.admin.ok("POST", "/silos/north/revoke")
        assert world.admin.refused("POST", "/silos/north/revoke") == (404, "not_found")

    def test_name_may_enrol_anew_with_a_higher_epoch(self, world: World) -> None:
        old = world.enrolled()
        first_epoch = old.log_in()["epoch"]
        world.admin.ok("POST", "/silos/north/revoke")
        new = world.enrolled()
        assert new.log_in()["epoch"] > first_epoch
        assert world.anybody.refused("POST", "/enrolment", old.enrolment()) == (403, "party_revoked")
        assert world.anybody.refused("POST", "/login", old.login()) == (401, "login_refused")


class TestOfflineRoot:
    def _sign(self, root: FederationRoot, request: dict[str, str], world: World) -> dict[str, str]:
        certificate = root.issue(
            PublicKey(base64.b64decode(request["public_key"])),
            kind=CertificateKind(request["kind"]),
            name=request["name"],
            not_before=world.clock(),
            not_after=world.clock() + timedelta(days=30),
        )
        return {"certificate": base64.b64encode(certificate.to_bytes()).decode()}

    @KINDS
    def test_enrolment_waits_for_the_signature(
        self, offline_world: tuple[World, FederationRoot], kind: str
    ) -> None:
        world, root = offline_world
        program = world.invited("north", kind)
        pending = program.enrol()
        assert (pending["status"], pending["certificate"]) == ("pending", None)
        assert world.anybody.refused("POST", "/login", program.login()) == (403, "party_pending")
        request = world.admin.ok("GET", f"/{kind}s/north/certificate-request")
        world.admin.ok("PUT", f"/{kind}s/north/certificate", self._sign(root, request, world))
        enrolled = program.enrol()
        assert enrolled["status"] == "enrolled"
        assert Fingerprint.of(PublicKey(base64.b64decode(enrolled["root_public_key"]))) == root.fingerprint
        program.log_in()

    def test_no_key_lies_on_the_server(self, offline_world: tuple[World, FederationRoot]) -> None:
        world, _ = offline_world
        assert not world.server.settings.resolved_root_file.exists()
        assert world.anybody.ok("GET", "/federation")["embedded"] is False

    def test_certificate_of_another_root_is_refused(
        self, offline_world: tuple[World, FederationRoot]
    ) -> None:
        world, _ = offline_world
        world.invited().enrol()
        request = world.admin.ok("GET", "/silos/north/certificate-request")
        body = self._sign(FederationRoot.generate(), request, world)
        refused = world.admin.refused("PUT", "/silos/north/certificate", body)
        assert refused == (409, "certificate_refused")

    @ON_SQLITE_ALONE
    @pytest.mark.parametrize("field", ["kind", "name", "public_key"])
    def test_certificate_for_another_request_is_refused(
        self, offline_world: tuple[World, FederationRoot], field: str
    ) -> None:
        world, root = offline_world
        world.invited().enrol()
        other_key = base64.b64encode(SigningKey.generate().public_key.raw).decode()
        other = {"kind": "worker", "name": "south", "public_key": other_key}
        request = world.admin.ok("GET", "/silos/north/certificate-request")
        body = self._sign(root, {**request, field: other[field]}, world)
        refused = world.admin.refused("PUT", "/silos/north/certificate", body)
        assert refused == (409, "certificate_refused")

    def test_revocation_list_of_the_root_revokes(self, offline_world: tuple[World, FederationRoot]) -> None:
        world, root = offline_world
        program = world.invited()
        program.enrol()
        request = world.admin.ok("GET", "/silos/north/certificate-request")
        shown = world.admin.ok("PUT", "/silos/north/certificate", self._sign(root, request, world))
        session = world.anybody.as_(program.log_in()["token"])
        revocations = root.revoke([int(shown["serial"])], issued_at=world.clock())
        body = {"revocation_list": base64.b64encode(revocations.to_bytes()).decode()}
        world.admin.ok("PUT", "/federation/revocations", body)
        assert session.refused("POST", "/session/heartbeat") == (401, "session_ended")
        assert world.admin.ok("GET", "/silos/north")["status"] == "revoked"

    def test_revocation_list_of_another_root_or_an_older_one_is_refused(
        self, offline_world: tuple[World, FederationRoot]
    ) -> None:
        world, root = offline_world
        first = root.revoke([1], issued_at=world.clock())
        second = root.revoke([2], issued_at=world.clock(), previous=first)
        foreign = FederationRoot.generate().revoke([1], issued_at=world.clock())
        bodies = [
            {"revocation_list": base64.b64encode(item.to_bytes()).decode()}
            for item in (second, first, foreign)
        ]
        world.admin.ok("PUT", "/federation/revocations", bodies[0])
        for body in bodies[1:]:
            refused = world.admin.refused("PUT", "/federation/revocations", body)
            assert refused == (409, "revocation_list_refused")
