"""The other commands that speak to the API: parties, models, users, tokens; and what every command has."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from backend.cli.main import app
from splitlearn.identity import Invitation
from tests.unit.backend.cli.conftest import Terminal
from tests.unit.backend.conftest import World
from tests.unit.backend.jobs.conftest import Federation, add_model

WITHOUT_JSON = {
    "api",  # these serve until they are stopped
    "gateway",
    "compare",  # other programs: their flags are their own
    "demo",
    "worker",
    "audit export",  # what these write is JSON in any case
    "root sign",
    "root revoke",
    "silos request",
    "workers request",
}


def commands() -> Iterator[tuple[str, typer.core.TyperCommand]]:
    """Every command by the words that are typed for it."""
    tree = get_command(app)
    assert isinstance(tree, typer.core.TyperGroup)
    for name, found in tree.commands.items():
        if isinstance(found, typer.core.TyperGroup):
            for word, leaf in found.commands.items():
                assert isinstance(leaf, typer.core.TyperCommand)
                yield f"{name} {word}", leaf
        else:
            assert isinstance(found, typer.core.TyperCommand)
            yield name, found


class TestEveryCommand:
    def test_shows_an_example(self) -> None:
        own_help = {"compare", "demo", "worker"}
        without = [
            words
            for words, command in commands()
            if words not in own_help and "Example: " not in (command.epilog or "")
        ]
        assert without == []

    def test_says_what_it_does(self) -> None:
        assert all((command.help or "").strip() for _, command in commands())

    def test_speaks_to_programs(self) -> None:
        flags = {
            words: {flag for param in command.params for flag in param.opts} for words, command in commands()
        }
        assert {words for words, known in flags.items() if "--json" not in known} == WITHOUT_JSON

    def test_helps_from_the_root_on(self, terminal: Terminal) -> None:
        ended = terminal("--help")
        assert (ended.exit_code, "--install-completion" in ended.out) == (0, True)
        assert terminal("jobs", "submit", "--help").exit_code == 0
        assert terminal("--version").out.startswith("trunkline ")

    def test_refuses_what_is_no_command_or_flag(self, terminal: Terminal) -> None:
        for words in (("lost",), ("jobs", "lost"), ("jobs", "list", "--lost"), ("jobs", "submit")):
            ended = terminal(*words)
            assert (ended.exit_code, ended.out, bool(ended.err)) == (2, "", True), words

    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_is_completed_by_the_shell(self, terminal: Terminal, shell: str) -> None:
        terminal.patch.setenv("_TRUNKLINE_COMPLETE", f"source_{shell}")
        ended = terminal()
        assert (ended.exit_code, "trunkline" in ended.out) == (0, True)


class TestParties:
    @pytest.mark.parametrize("word", ["silos", "workers"])
    def test_are_invited_listed_and_revoked(self, admin: Terminal, world: World, word: str) -> None:
        invited = admin(word, "invite", "north", "--hours", "24", "--json").json
        assert invited["invitation"].startswith("trunkline-invitation-1.")
        printed = admin(word, "invite", "north").out
        assert "fingerprint: " in printed
        assert Invitation.parse(printed).name == "north", "a file of it is what is asked for at enrolment"
        world.enrolled("south", word.removesuffix("s"))
        assert [row["name"] for row in admin(word, "list", "--json").json] == ["south"]
        assert "south" in admin(word, "list").out
        assert admin(word, "revoke", "south", "--json").json["status"] == "revoked"
        again = admin(word, "revoke", "south")
        assert (again.exit_code, again.out, "'south'" in again.err) == (12, "", True)

    @pytest.mark.parametrize("word", ["silos", "workers"])
    def test_invitations_are_listed_and_withdrawn(self, admin: Terminal, word: str) -> None:
        made = [admin(word, "invite", name, "--json").json for name in ("north", "south")]
        listed = admin(word, "invitations", "--json").json
        # Made at the same moment of the test's clock, they have no order.
        assert {row["id"] for row in listed} == {invited["id"] for invited in made}
        shown = admin(word, "invitations").out
        assert made[0]["id"] in shown
        assert "trunkline-invitation" not in shown, "the secret is shown once"
        other = {"silos": "workers", "workers": "silos"}[word]
        assert admin(other, "withdraw", made[0]["id"]).exit_code == 12
        assert admin(word, "withdraw", made[0]["id"], "--json").json == {"withdrawn": made[0]["id"]}
        assert [row["name"] for row in admin(word, "invitations", "--json").json] == ["south"]
        again = admin(word, "withdraw", made[0]["id"])
        assert (again.exit_code, again.out) == (12, "")
        assert admin(word, "withdraw", "north").exit_code == 2

    def test_are_invited_by_names_alone(self, admin: Terminal) -> None:
        for name in ("North", "", "a/b", "a b"):
            ended = admin("silos", "invite", name)
            assert (ended.exit_code, ended.out, "name" in ended.err) == (12, "", True), name
        assert admin("silos", "invite", "north", "--hours", "0").exit_code == 2

    def test_show_no_request_where_nobody_waits(self, admin: Terminal, world: World) -> None:
        world.enrolled("north")
        ended = admin("silos", "request", "north")
        assert (ended.exit_code, ended.out) == (12, "")


class TestModels:
    def test_are_added_listed_shown_and_removed(self, admin: Terminal, world: World) -> None:
        assert admin("models", "add", "big", "hub:owner/name", "--json").json["state"] == "importing"
        add_model(world)
        assert [row["name"] for row in admin("models", "list", "--json").json] == ["big", "tiny"]
        assert "llama" in admin("models", "list").out
        assert admin("models", "show", "tiny", "--json").json["state"] == "ready"
        assert admin("models", "remove", "tiny", "--json").json == {"removed": "tiny"}
        assert admin("models", "remove", "big").out == "removed: big\n"
        assert admin("models", "list", "--json").json == []

    def test_are_refused_with_the_remedy(self, admin: Terminal, federation: Federation) -> None:
        federation.submit()
        for words, sentence in (
            (("add", "x", "folder:/etc"), "TRUNKLINE_MODEL_SOURCES"),
            (("add", "x", "nothing"), "hub:OWNER/NAME"),
            (("add", "tiny", "hub:owner/name"), "choose another name"),
            (("remove", "tiny"), "wait for the job's end"),
            (("remove", "none"), "'none'"),
            (("show", "../jobs"), "there is no"),
            (("list", "--project", "a&b"), ""),
        ):
            ended = admin("models", *words)
            expected = 0 if words[0] == "list" else 12
            assert (ended.exit_code, sentence in ended.err) == (expected, True), (words, ended)


class TestUsersAndTokens:
    def test_users_are_made_changed_and_shut_out(self, admin: Terminal) -> None:
        assert admin("users", "add", "rosa", "--role", "researcher", "--json").json["password"]
        assert admin("users", "set-role", "rosa", "auditor", "--json").json["role"] == "auditor"
        assert admin("users", "disable", "rosa", "--json").json["disabled_at"]
        assert admin("users", "enable", "rosa", "--json").json["disabled_at"] is None
        assert admin("users", "reset-password", "rosa", "--json").json["password"]
        assert [row["name"] for row in admin("users", "list", "--json").json] == ["admin", "rosa"]
        ended = admin("users", "add", "rosa")
        assert (ended.exit_code, ended.out, "rosa" in ended.err) == (12, "", True)
        assert admin("users", "set-role", "rosa", "king").exit_code == 2

    def test_users_have_roles_in_projects(self, admin: Terminal) -> None:
        admin("users", "add", "rosa", "--role", "researcher")
        words = ("users", "set-role", "rosa", "auditor", "--project")
        assert admin(*words, "default", "--json").json["role"] == "auditor"
        assert "rosa" in admin("users", "list").out
        ended = admin(*words, "nowhere")
        assert (ended.exit_code, "'nowhere'" in ended.err) == (12, True)

    def test_tokens_have_scopes(self, admin: Terminal) -> None:
        made = admin("tokens", "add", "nightly", "--scope", "read", "--scope", "manage", "--json").json
        assert made["scopes"] == ["manage", "read"]
        assert admin("tokens", "add", "nightly", "--scope", "fly").exit_code == 2

    def test_tokens_are_made_and_revoked(self, admin: Terminal) -> None:
        made = admin("tokens", "add", "nightly", "--role", "auditor", "--days", "3", "--json").json
        admin.patch.setenv("TRUNKLINE_TOKEN", f"  {made['token']}\n")  # as a file gives it
        assert admin("users", "list").exit_code == 0
        ended = admin("silos", "invite", "north")
        assert (ended.exit_code, "this token does not pass it on" in ended.err) == (12, True)
        assert made["id"] in admin("tokens", "list").out
        assert admin("tokens", "revoke", made["id"], "--json").json == {"revoked": made["id"]}
        assert admin("users", "list").exit_code == 12


class TestWorkers:
    @pytest.mark.usefixtures("federation")
    def test_are_listed_and_shown_with_their_devices(self, admin: Terminal) -> None:
        for said in (admin("workers", "list").out, admin("workers", "show", "worker").out):
            assert "test, 8.0 of 16.0 GiB free" in said
        assert admin("workers", "show", "worker", "--json").json["devices"][0]["kind"] == "cpu"

    @pytest.mark.usefixtures("federation")
    def test_are_drained_and_take_rounds_again(self, admin: Terminal) -> None:
        assert "takes no other round, since 2026-" in admin("workers", "drain", "worker").out
        assert admin("workers", "show", "worker", "--json").json["drained_at"] is not None
        assert admin("workers", "undrain", "worker").out == "worker takes rounds\n"
        unknown = admin("workers", "drain", "nobody")
        assert (unknown.exit_code, "no worker 'nobody'" in unknown.err) == (12, True)

    def test_a_plan_shows_where_layers_would_lie(
        self, admin: Terminal, federation: Federation, tmp_path: Path
    ) -> None:
        spec = tmp_path / "job.json"
        spec.write_text(json.dumps(federation.spec()))
        said = admin("jobs", "plan", str(spec)).out
        assert re.search(r"worker +cpu +\d+ to \d+ +\d+ +\d+", said)
