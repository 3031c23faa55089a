"""Enrolment and sessions against the real control plane."""

import dataclasses

import httpx2
import pytest

from splitlearn.control_plane.client import PartyClient
from splitlearn.control_plane.enrolment import enrol
from splitlearn.control_plane.errors import RefusedError, RevokedError, SupersededError
from splitlearn.control_plane.session import Session, new_boot_id
from splitlearn.control_plane.state_folder import Boots, StateFolder
from splitlearn.errors import IdentityError, StorageError
from splitlearn.identity import CertificateKind, FederationRoot, Fingerprint, FingerprintError, Invitation
from tests.unit.backend.conftest import ON_SQLITE_ALONE, World
from tests.unit.control_plane.conftest import Wire, run

pytestmark = ON_SQLITE_ALONE
SILO = CertificateKind.SILO


def invite(world: World, name: str = "north") -> str:
    text: str = world.admin.ok("POST", "/silos/invitations", {"name": name})["invitation"]
    return text


async def joined(world: World, state: StateFolder) -> str:
    text = invite(world)
    await enrol(text, state, kind=SILO)
    return text


@pytest.mark.usefixtures("wire")
class TestEnrol:
    def test_gets_a_certificate(self, world: World, state: StateFolder) -> None:
        async def test() -> None:
            await joined(world, state)
            certificate = state.identity().certificate
            state.trust().verify(certificate, kind=SILO, name="north", now=world.clock())

        run(test())

    def test_asks_nobody_when_it_is_done(self, world: World, state: StateFolder, wire: Wire) -> None:
        async def test() -> None:
            text = await joined(world, state)
            wire.paths.clear()
            await enrol(text, state, kind=SILO)
            assert wire.paths == []

        run(test())

    def test_a_lost_answer_costs_nothing(self, world: World, state: StateFolder, wire: Wire) -> None:
        async def test() -> None:
            text = invite(world)
            lost = [True]

            def lose(request: httpx2.Request) -> Exception | None:
                if request.url.path.endswith("/enrolment") and lost.pop():
                    lost.append(False)
                    return httpx2.ReadError("cut")
                return None

            wire.cut = lose
            assert (await enrol(text, state, kind=SILO)).certificate is not None

        run(test())

    def test_sends_nothing_to_a_server_with_another_root(
        self, world: World, state: StateFolder, wire: Wire
    ) -> None:
        other = Fingerprint.of(FederationRoot.generate().public_key)

        async def test() -> None:
            text = dataclasses.replace(Invitation.parse(invite(world)), fingerprint=other).to_text()
            with pytest.raises(FingerprintError):
                await enrol(text, state, kind=SILO)
            assert wire.paths == ["/federation"]

        run(test())

    def test_refuses_an_invitation_for_another_kind(self, world: World, state: StateFolder) -> None:
        async def test() -> None:
            with pytest.raises(IdentityError, match="this program is a worker"):
                await enrol(invite(world), state, kind=CertificateKind.WORKER)

        run(test())

    def test_refuses_a_folder_of_another_party(self, world: World, state: StateFolder) -> None:
        async def test() -> None:
            await joined(world, state)
            with pytest.raises(StorageError, match="belongs to silo 'north'"):
                await enrol(invite(world, "south"), state, kind=SILO)

        run(test())

    def test_a_used_invitation_raises_the_alarm(self, world: World, state: StateFolder) -> None:
        async def test() -> None:
            text = await joined(world, state)
            with pytest.raises(RefusedError, match="somebody else enrolled") as caught:
                await enrol(text, StateFolder(state.path.parent / "other"), kind=SILO)
            assert caught.value.code == "invitation_used"

        run(test())

    def test_an_expired_invitation_is_named(self, world: World, state: StateFolder) -> None:
        async def test() -> None:
            text = invite(world)
            world.clock.advance(days=30)
            with pytest.raises(RefusedError, match="ask for a new invitation"):
                await enrol(text, state, kind=SILO)

        run(test())

    def test_a_revoked_party_comes_back_by_a_new_invitation(self, world: World, state: StateFolder) -> None:
        async def test() -> None:
            await joined(world, state)
            world.admin.ok("POST", "/silos/north/revoke")
            before = state.identity().certificate.serial
            await joined(world, state)
            assert state.identity().certificate.serial != before

        run(test())


@pytest.mark.usefixtures("wire")
class TestSession:
    def test_the_next_process_takes_over(self, world: World, state: StateFolder) -> None:
        async def test() -> None:
            await joined(world, state)
            async with Session(state, log_out=False) as first, Session(state) as second:
                assert second.epoch == first.epoch + 1

        run(test())

    def test_a_child_shares_its_parents_epoch(self, world: World, state: StateFolder) -> None:
        async def test() -> None:
            await joined(world, state)
            async with Session(state) as parent, Session(state, boot_id=parent.boot_id) as child:
                assert child.epoch == parent.epoch
                assert (await PartyClient(parent).silo_jobs()).jobs == ()

        run(test())

    def test_takes_over_from_one_that_was_killed_while_it_logged_in(
        self, world: World, state: StateFolder
    ) -> None:
        async def test() -> None:
            await joined(world, state)
            async with Session(state, log_out=False) as killed:
                # Its answer came, its note of it was never written.
                state.write_boots(Boots(last=None, trying=killed.boot_id))
                async with Session(state) as second:
                    assert second.epoch == killed.epoch + 1

        run(test())

    def test_a_copied_folder_is_refused_while_the_first_lives(self, world: World, state: StateFolder) -> None:
        async def test() -> None:
            await joined(world, state)
            async with Session(state):
                state.write_boots(Boots(last=new_boot_id()))
                with pytest.raises(SupersededError, match="enrol that one anew"):
                    await Session(state).__aenter__()

        run(test())

    def test_logs_in_again_when_the_session_is_too_old(self, world: World, state: StateFolder) -> None:
        async def test() -> None:
            await joined(world, state)
            async with Session(state) as session:
                world.clock.advance(hours=2)
                assert (await PartyClient(session).silo_jobs()).jobs == ()

        run(test())

    def test_ends_when_another_process_took_over(self, world: World, state: StateFolder) -> None:
        async def test() -> None:
            await joined(world, state)
            async with Session(state) as first, Session(state):
                with pytest.raises(SupersededError):
                    await PartyClient(first).silo_jobs()
                assert isinstance(await first.ended(), SupersededError)

        run(test())

    def test_ends_when_the_party_is_revoked(self, world: World, state: StateFolder) -> None:
        async def test() -> None:
            await joined(world, state)
            async with Session(state) as session:
                world.admin.ok("POST", "/silos/north/revoke")
                with pytest.raises(RevokedError):
                    await PartyClient(session).silo_jobs()

        run(test())

    def test_learns_of_revoked_parties(self, world: World, state: StateFolder) -> None:
        async def test() -> None:
            await joined(world, state)
            world.enrolled("south")
            world.admin.ok("POST", "/silos/south/revoke")
            async with Session(state):
                revocations = state.trust().revocations
                assert revocations is not None
                assert revocations.number == 1

        run(test())

    def test_signs_nothing_for_another_audience(self, world: World, state: StateFolder, wire: Wire) -> None:
        async def test() -> None:
            await joined(world, state)
            membership = state.enrolled()
            state.write_membership(membership.model_copy(update={"url": "https://elsewhere.example"}))
            with pytest.raises(IdentityError, match="nothing was signed"):
                await Session(state).__aenter__()
            assert "/login" not in wire.paths[-1:]

        run(test())
