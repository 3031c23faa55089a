"""A party takes a new key, against the real control plane; killed anywhere, it goes on."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest

from client_agent.cli import identity
from splitlearn.control_plane.enrolment import enrol
from splitlearn.control_plane.errors import FolderInUseError, RefusedError
from splitlearn.control_plane.expiry import ending_sentence
from splitlearn.control_plane.rotation import rotate_key
from splitlearn.control_plane.session import Session
from splitlearn.control_plane.state_folder import StateFolder
from splitlearn.errors import StorageError
from splitlearn.identity import CertificateKind, Identity
from tests.unit.backend.conftest import ON_SQLITE_ALONE, World
from tests.unit.control_plane.conftest import Wire, run
from worker.rotation import rotate

pytestmark = ON_SQLITE_ALONE


class KilledError(Exception):
    """Stands for kill -9."""


async def joined(world: World, state: StateFolder) -> Identity:
    text = world.admin.ok("POST", "/silos/invitations", {"name": "north"})["invitation"]
    await enrol(text, state, kind=CertificateKind.SILO)
    return state.identity()


@pytest.mark.usefixtures("wire")
class TestRotateKey:
    def test_gives_a_new_pair_and_takes_the_old_one_away(self, world: World, state: StateFolder) -> None:
        async def test() -> None:
            old = await joined(world, state)
            certificate = await rotate_key(state)
            assert state.identity() != old
            assert state.identity().certificate == certificate
            assert not (state.path / "next.key").exists()
            assert world.admin.ok("GET", "/silos/north")["serial"] == str(certificate.serial)

        run(test())

    def test_leaves_a_running_session_as_it_is(self, world: World, state: StateFolder) -> None:
        async def test() -> None:
            await joined(world, state)
            with state.locked():
                async with Session(state) as session:
                    epoch, token = session.epoch, await session.token()
                    await rotate_key(StateFolder(state.path))
                    world.anybody.as_(token).ok("POST", "/session/heartbeat")
                    renewed = await session.renew(token)  # signed by the new key, under the same boot id
                    world.anybody.as_(renewed).ok("POST", "/session/heartbeat")
                    assert session.epoch == epoch

        run(test())

    def test_may_be_done_again_and_again(self, world: World, state: StateFolder) -> None:
        async def test() -> None:
            seen = {(await joined(world, state)).certificate.serial}
            for _ in range(3):
                seen.add((await rotate_key(state)).serial)
            assert len(seen) == 4

        run(test())

    @pytest.mark.parametrize("step", ["switch_key", "drop_old_key", "next_signing_key", "write_membership"])
    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    def test_goes_on_where_it_was_killed(
        self,
        world: World,
        state: StateFolder,
        monkeypatch: pytest.MonkeyPatch,
        step: str,
        after: bool,  # noqa: FBT001 - a parameter of the test
    ) -> None:
        async def test() -> None:
            old = await joined(world, state)
            real: Callable[..., object] = getattr(StateFolder, step)

            def killed(folder: StateFolder, *given: object) -> object:
                if after:
                    real(folder, *given)
                raise KilledError

            with monkeypatch.context() as patch:
                patch.setattr(StateFolder, step, killed)
                with pytest.raises(KilledError):
                    await rotate_key(state)
            async with Session(state):
                pass  # whichever pair counts: it may speak
            await rotate_key(state)
            assert state.identity().certificate.serial != old.certificate.serial
            async with Session(state):
                pass

        run(test())

    @pytest.mark.parametrize("path", ["/rotation", "/rotation/finish"])
    def test_survives_a_lost_answer(self, world: World, state: StateFolder, wire: Wire, path: str) -> None:
        async def test() -> None:
            await joined(world, state)
            lost = [True]

            def lose(request: httpx2.Request) -> Exception | None:
                if request.url.path.endswith(path) and lost:
                    lost.clear()
                    return httpx2.ReadError("cut")
                return None

            wire.cut = lose
            await rotate_key(state)
            async with Session(state):
                pass

        run(test())

    def test_is_one_process_business(self, world: World, state: StateFolder) -> None:
        async def test() -> None:
            await joined(world, state)
            with state.rotating(), pytest.raises(FolderInUseError, match="rotates the key"):
                await rotate_key(StateFolder(state.path))

        run(test())

    def test_is_refused_to_who_is_revoked_or_not_enrolled(self, world: World, state: StateFolder) -> None:
        async def test() -> None:
            with pytest.raises(StorageError, match="enrol first"):
                await rotate_key(state)
            await joined(world, state)
            world.admin.ok("POST", "/silos/north/revoke")
            with pytest.raises(RefusedError):
                await rotate_key(state)

        run(test())


@pytest.mark.usefixtures("wire")
class TestCommands:
    def test_of_agent_and_worker_rotate_the_key_in_their_folder(
        self, world: World, state: StateFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run(_join(world, state))
        before = state.identity()
        identity.rotate(state_dir=state.path)
        assert "the new key is certified until 20" in capsys.readouterr().out
        assert state.identity() != before
        identity.status(state_dir=state.path)
        assert "certificate warning" in capsys.readouterr().out
        of_worker = StateFolder(tmp_path / "worker")
        text = world.admin.ok("POST", "/workers/invitations", {"name": "gpu"})["invitation"]
        run(_enrol(text, of_worker))
        before = of_worker.identity()
        rotate(of_worker.path)
        assert of_worker.identity() != before


async def _join(world: World, state: StateFolder) -> None:
    await joined(world, state)


async def _enrol(text: str, state: StateFolder) -> None:
    await enrol(text, state, kind=CertificateKind.WORKER)


class TestEndingSentence:
    @pytest.mark.parametrize(
        ("days", "said"), [(31, None), (30, "ends at"), (0, "ended at"), (-1, "ended at")]
    )
    @pytest.mark.usefixtures("wire")
    def test_is_said_30_days_ahead(
        self, world: World, state: StateFolder, days: int, said: str | None
    ) -> None:
        async def test() -> None:
            certificate = (await joined(world, state)).certificate
            sentence = ending_sentence(certificate, now=certificate.not_after - timedelta(days=days))
            assert (sentence is None) == (said is None)
            assert said is None or said in str(sentence)
            assert said is None or "trunkline-agent rotate-key" in str(sentence)
            assert ending_sentence(certificate, now=datetime(2000, 1, 1, tzinfo=UTC)) is None

        run(test())
