"""``trunkline notices``, ``root rotate-signer``, ``root pending`` and what lists say of certificates."""

import threading
from collections.abc import Iterator

import pytest

from backend.notices.postman import send_due
from backend.settings import Settings
from tests.unit.backend.cli.conftest import Terminal
from tests.unit.backend.conftest import World


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Webhooks may go to this machine, where nobody listens."""
    return settings.model_copy(update={"webhook_private": True})


@pytest.fixture
def sending(world: World) -> Iterator[None]:
    """A postman at work, as the server runs one."""
    stopped = threading.Event()

    def send() -> None:
        while not stopped.wait(0.05):
            send_due(world.server)

    thread = threading.Thread(target=send)
    thread.start()
    yield
    stopped.set()
    thread.join()


class TestNotices:
    def test_are_set_listed_and_removed(self, admin: Terminal) -> None:
        words = ("notices", "add", "ops", "webhook", "http://127.0.0.1:1/", "--topic", "job_failed", "--json")
        made = admin(*words).json
        assert (made["topics"], len(made["secret"])) == (["job_failed"], 64)
        assert "http://127.0.0.1:1/" in admin("notices", "list").out
        assert admin("notices", "sent", "ops", "--json").json == []
        assert admin("notices", "remove", "ops").out == "removed: ops\n"
        assert admin("notices", "list", "--json").json == []

    def test_are_refused_with_the_remedy(self, admin: Terminal) -> None:
        for words, sentence in (
            (("add", "ops", "email", "rosa@clinic.example"), "TRUNKLINE_SMTP_HOST"),
            (("add", "ops", "webhook", "ftp://x/"), "public host"),
            (("add", "ops", "webhook", "http://127.0.0.1:1/", "--topic", "gossip"), "topics"),
            (("test", "ops"), "no channel 'ops'"),
        ):
            ended = admin("notices", *words)
            assert (ended.exit_code, sentence in ended.err) == (12, True), ended

    @pytest.mark.usefixtures("sending")
    def test_say_why_a_test_did_not_arrive(self, admin: Terminal) -> None:
        admin("notices", "add", "ops", "webhook", "http://127.0.0.1:1/")
        ended = admin("notices", "test", "ops")
        assert (ended.exit_code, "it did not arrive: the host did not take it" in ended.err) == (12, True)
        assert "A test of the channel ops" in admin("notices", "sent", "ops").out


class TestKeys:
    def test_of_the_server_are_rotated(self, admin: Terminal, world: World) -> None:
        before = world.admin.ok("GET", "/federation/spec-signer")["public_key"]
        assert admin("root", "rotate-signer", "--json").json["public_key"] != before
        assert "signs from now on" in admin("root", "rotate-signer").out
        assert admin("root", "pending", "--json").json["pending"] == []
        assert "serial" in admin("root", "pending").out

    def test_that_end_soon_are_named(self, admin: Terminal, world: World) -> None:
        world.enrolled("north")
        assert admin("silos", "list").err == ""
        world.clock.advance(days=world.server.settings.certificate_days - 29)
        admin.patch.setenv("TRUNKLINE_TOKEN", str(world.sign_in("admin", world.first.password).token))
        said = admin("silos", "list").err
        assert "less than 30 days left: north" in said
        assert "trunkline-agent rotate-key" in said
