"""``trunkline root``: an offline root from the first file to the last."""

import base64
import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from backend.cli.main import app
from backend.cli.output import CommandError
from splitlearn.errors import StorageError
from splitlearn.identity import Certificate, CertificateKind, FederationRoot, SigningKey, TrustStore
from tests.unit.backend.conftest import World

RUNNER = CliRunner()
KEY = base64.b64encode(SigningKey.generate().public_key.raw).decode()


def _ok(*arguments: object) -> Result:
    result = RUNNER.invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def root_file(tmp_path: Path) -> Path:
    path = tmp_path / "root.key"
    _ok("root", "init", "--root", path)
    return path


@pytest.fixture
def request_file(tmp_path: Path) -> Path:
    path = tmp_path / "request.json"
    path.write_text(_request())
    return path


def _request(**changes: str) -> str:
    fields = {
        "format": "trunkline/certificate-request/v1",
        "kind": "silo",
        "name": "north",
        "public_key": KEY,
    }
    return json.dumps({**fields, **changes})


class TestInit:
    def test_makes_a_file_that_only_its_owner_reads(self, root_file: Path) -> None:
        assert stat.S_IMODE(root_file.stat().st_mode) == 0o600

    def test_tells_what_the_server_has_to_know(self, tmp_path: Path) -> None:
        path = tmp_path / "other.key"
        facts = json.loads(_ok("root", "init", "--root", path, "--json").stdout)
        root = FederationRoot.load(path)
        assert facts["TRUNKLINE_ROOT_PUBLIC_KEY"] == root.public_key.raw.hex()
        assert facts["fingerprint"] == str(root.fingerprint)

    def test_never_overwrites_a_root(self, root_file: Path) -> None:
        with pytest.raises(StorageError, match="never overwritten"):
            _ok("root", "init", "--root", root_file)


class TestSignAndRevoke:
    def test_certificate_can_be_listed_and_revoked(
        self, tmp_path: Path, root_file: Path, request_file: Path
    ) -> None:
        certificate, revocations = tmp_path / "north.certificate", tmp_path / "list.json"
        _ok("root", "sign", request_file, "--root", root_file, "--out", certificate, "--days", 7)
        listed = json.loads(_ok("root", "list", certificate, "--json").stdout)[0]
        assert listed["certificate"] == "silo north"
        _ok("root", "revoke", listed["serial"], "--root", root_file, "--out", revocations)
        shown = json.loads(_ok("root", "list", revocations, "--json").stdout)[0]
        assert (shown["revocation_list"], shown["serials"]) == ("1", listed["serial"])

    @pytest.mark.parametrize("kind", list(CertificateKind))
    def test_every_kind_of_request_is_signed(
        self, tmp_path: Path, root_file: Path, request_file: Path, kind: CertificateKind
    ) -> None:
        path = tmp_path / "signed"
        asked = {**json.loads(request_file.read_text()), "kind": kind.value, "certificate": None}
        request_file.write_text(json.dumps(asked))
        result = _ok("root", "sign", request_file, "--root", root_file, "--out", path)
        assert f"signed: {kind.value} north" in result.stderr
        certificate = Certificate.from_bytes(base64.b64decode(json.loads(path.read_text())["certificate"]))
        trust = TrustStore(FederationRoot.load(root_file).public_key)
        trust.verify(certificate, kind=kind, name="north", now=datetime.now(tz=UTC))

    def test_the_servers_own_request_is_signed_and_installed(
        self, offline_world: tuple[World, FederationRoot], tmp_path: Path
    ) -> None:
        world, root = offline_world
        key, request, signed = tmp_path / "offline.key", tmp_path / "signer.json", tmp_path / "signed"
        root.save(key)
        world.clock.moment = datetime.now(tz=UTC)  # the command has no other clock
        world.admin = world.sign_in(world.first.name, world.first.password)
        request.write_text(json.dumps(world.admin.ok("GET", "/federation/spec-signer")))
        _ok("root", "sign", request, "--root", key, "--out", signed)
        body = json.loads(signed.read_text())
        assert world.admin.ok("PUT", "/federation/spec-signer", body)["certificate"] == body["certificate"]

    def test_next_list_holds_the_previous_one(self, tmp_path: Path, root_file: Path) -> None:
        first, second = tmp_path / "1.json", tmp_path / "2.json"
        _ok("root", "revoke", 5, "--root", root_file, "--out", first)
        _ok("root", "revoke", 3, "--root", root_file, "--previous", first, "--out", second)
        shown = json.loads(_ok("root", "list", second, "--json").stdout)[0]
        assert (shown["revocation_list"], shown["serials"]) == ("2", "3 5")

    @pytest.mark.parametrize(
        "content",
        ["", "[]", "{}", '{"certificate": "AAAA"}', "{" * 100, _request(kind="root"), _request(name="A b")],
    )
    def test_refuses_a_file_that_is_no_request(self, tmp_path: Path, root_file: Path, content: str) -> None:
        path = tmp_path / "wrong.json"
        path.write_text(content)
        with pytest.raises(CommandError):
            _ok("root", "sign", path, "--root", root_file)
