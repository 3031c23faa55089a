"""``trunkline audit``: what an auditor types."""

import json
from pathlib import Path

import pytest

from tests.unit.backend.cli.conftest import Terminal
from tests.unit.backend.conftest import World


@pytest.fixture
def key(world: World) -> str:
    return world.server.authority.public_key.raw.hex()


class TestExport:
    def test_writes_a_file_that_verifies_without_server_and_token(
        self, admin: Terminal, key: str, tmp_path: Path
    ) -> None:
        file = tmp_path / "audit.jsonl"
        ended = admin("audit", "export", "--out", str(file))
        assert (ended.exit_code, ended.out, ended.err) == (0, "", "")
        admin.patch.delenv("TRUNKLINE_TOKEN")
        admin.patch.setenv("TRUNKLINE_URL", "http://127.0.0.1:1")
        found = admin("audit", "verify", str(file), "--root-public-key", key, "--json").json
        assert found["rows"] == len(file.read_bytes().splitlines()) - 1
        assert "whole: " in admin("audit", "verify", str(file), "--root-public-key", key).out

    def test_takes_the_key_as_the_api_shows_it(self, admin: Terminal, world: World) -> None:
        shown = world.anybody.ok("GET", "/federation")
        found = admin("audit", "verify", "--server", "--root-public-key", shown["root_public_key"], "--json")
        assert found.json["root"] == shown["fingerprint"]

    def test_needs_the_role(self, admin: Terminal, world: World) -> None:
        token = world.user("rosa", "researcher").token
        assert token is not None
        admin.patch.setenv("TRUNKLINE_TOKEN", token)
        assert admin("audit", "export").exit_code == 12

    def test_on_the_server_hides_nothing(
        self, admin: Terminal, world: World, key: str, tmp_path: Path
    ) -> None:
        file = tmp_path / "audit.jsonl"
        admin.patch.setenv("TRUNKLINE_STATE_DIR", str(tmp_path))
        url = world.server.database.engine.url.render_as_string(hide_password=False)
        admin.patch.setenv("TRUNKLINE_DATABASE_URL", url)
        assert admin("audit", "export", "--on-server", "--out", str(file)).exit_code == 0
        found = admin("audit", "verify", str(file), "--root-public-key", key, "--json").json
        assert found["hidden"] == 0


class TestVerify:
    @pytest.fixture
    def file(self, admin: Terminal, tmp_path: Path) -> Path:
        path = tmp_path / "audit.jsonl"
        admin("audit", "export", "--out", str(path))
        return path

    def test_names_a_changed_row(self, admin: Terminal, file: Path, key: str) -> None:
        lines = file.read_text().splitlines(keepends=True)
        place = next(number for number, line in enumerate(lines) if '"content"' in line)
        fields = json.loads(lines[place])
        fields["content"]["outcome"] = "refused"
        lines[place] = json.dumps(fields, sort_keys=True, separators=(",", ":")) + "\n"
        file.write_text("".join(lines))
        ended = admin("audit", "verify", str(file), "--root-public-key", key)
        assert (ended.exit_code, ended.out, f"row {place + 1} " in ended.err) == (7, "", True)

    def test_continues_an_earlier_export(self, admin: Terminal, world: World, file: Path, key: str) -> None:
        world.admin.ok("POST", "/projects", {"name": "second"})
        words = ("audit", "verify", "--server", "--root-public-key", key, "--earlier", str(file))
        assert admin(*words, "--json").json["continues"] == str(file)

    def test_finds_that_an_earlier_export_told_of_more(
        self, admin: Terminal, world: World, file: Path, key: str, tmp_path: Path
    ) -> None:
        world.admin.ok("POST", "/projects", {"name": "second"})
        later = tmp_path / "later.jsonl"
        admin("audit", "export", "--out", str(later))
        ended = admin("audit", "verify", str(file), "--root-public-key", key, "--earlier", str(later))
        assert (ended.exit_code, "were dropped" in ended.err) == (7, True)

    def test_refuses_another_root(self, admin: Terminal, file: Path) -> None:
        other = "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29"
        ended = admin("audit", "verify", str(file), "--root-public-key", other)
        assert (ended.exit_code, "row 1 " in ended.err) == (7, True)

    @pytest.mark.parametrize(
        ("words", "exit_code"),
        [
            (("--root-public-key", "x", "--server"), 2),
            (("--root-public-key", "00" * 32, "--server"), 2),
            (("--server",), 2),
            (("--root-public-key", "KEY"), 2),
            (("FILE", "--root-public-key", "KEY", "--server"), 2),
            (("nowhere.jsonl", "--root-public-key", "KEY"), 5),
            (("FILE", "--root-public-key", "KEY", "--earlier", "nowhere.jsonl"), 5),
        ],
    )
    def test_refuses_what_is_no_question(
        self, admin: Terminal, file: Path, key: str, words: tuple[str, ...], exit_code: int
    ) -> None:
        typed = [{"KEY": key, "FILE": str(file)}.get(word, word) for word in words]
        ended = admin("audit", "verify", *typed)
        assert (ended.exit_code, ended.out, bool(ended.err)) == (exit_code, "", True)
