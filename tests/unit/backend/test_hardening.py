"""What a hostile page, request, model or answer tries."""

import gzip
import os
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.app_prefix import API_PREFIX
from backend.models.errors import SourceRefusedError
from backend.models.sources import check_source, opened
from backend.settings import Settings
from tests.unit.backend.conftest import ON_SQLITE_ALONE, World

EVERYWHERE = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
}
YEAR = "max-age=31536000"


@ON_SQLITE_ALONE
class TestHeaders:
    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", f"{API_PREFIX}/federation", 200),
            ("GET", f"{API_PREFIX}/me", 401),
            ("GET", f"{API_PREFIX}/nothing", 404),
            ("DELETE", f"{API_PREFIX}/sign-in", 405),
            ("POST", f"{API_PREFIX}/sign-in", 422),
            ("GET", "/healthz", 200),
            ("GET", "/docs", 200),
            ("GET", "/nothing", 404),
        ],
    )
    def test_stand_on_every_answer(self, world: World, method: str, path: str, status: int) -> None:
        answer = world.anybody.client.request(method, path)
        assert answer.status_code == status
        assert {name: answer.headers[name] for name in EVERYWHERE} == EVERYWHERE
        policy = answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
        assert "default-src 'none'" in policy or "default-src 'self'" in policy

    def test_stand_on_our_own_failure_and_on_a_body_too_large(self, world: World) -> None:
        limit = world.server.settings.max_body_bytes
        large = world.anybody("POST", "/sign-in", {"name": "admin", "password": "x" * limit})
        with world.server.database.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE federation RENAME TO gone")
        failed = world.anybody("GET", "/federation")
        for answer, status in ((large, 413), (failed, 500)):
            assert (answer.status_code, answer.headers["x-frame-options"]) == (status, "DENY")

    def test_let_no_page_run_what_is_written_into_it(self, world: World) -> None:
        for path in ("/", "/healthz", f"{API_PREFIX}/federation"):
            policy = world.anybody.client.get(path).headers["content-security-policy"]
            assert "unsafe" not in policy
            assert "http" not in policy

    def test_keep_the_api_out_of_caches(self, world: World) -> None:
        assert world.admin("GET", "/tokens").headers["cache-control"] == "no-store"

    def test_ask_for_https_only_where_it_is_served(self, world: World, settings: Settings) -> None:
        assert world.anybody("GET", "/federation").headers["strict-transport-security"] == YEAR
        plain = settings.model_copy(update={"public_url": ""})
        server = world.server
        object.__setattr__(server, "settings", plain)
        answer = TestClient(create_app(server)).get("/healthz")
        assert "strict-transport-security" not in answer.headers

    def test_no_page_of_another_origin_may_read_answers(self, world: World) -> None:
        headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        for method in ("OPTIONS", "GET"):
            answer = world.anybody.client.request(method, f"{API_PREFIX}/federation", headers=headers)
            assert "access-control-allow-origin" not in answer.headers


class TestModelSources:
    @pytest.mark.parametrize(
        "source",
        [
            "http://169.254.169.254/latest/meta-data",
            "https://evil.example/model",
            "file:///etc/passwd",
            "s3://bucket/model",
            "hub:http://169.254.169.254/x",
            "hub://evil.example/x",
            "hub:owner",
            "hub:/etc",
            "hub:../../etc/passwd",
            "hub:owner/..",
            "hub:owner/.hidden",
            "hub:owner/name/more",
            "hub:owner/name@../../other/name/main",
            "hub:owner/name@main?x=1",
            "hub:owner/name@main#x",
            "hub:owner/name\n",
            "hub:owner/name@",
            "hub:\u00f6wner/name",
            "hub:user:password@evil.example/name",
            "folder:/etc",
            "folder:",
            "folder:ALLOWED/../secret",
            "folder:ALLOWED/../../../../etc",
            "folder:ALLOWED-not/model",
            "FOLDER:/etc",
            "",
        ],
    )
    def test_that_lead_elsewhere_are_refused(self, tmp_path: Path, source: str) -> None:
        allowed = tmp_path / "allowed"
        for folder in (allowed, tmp_path / "secret", tmp_path / "allowed-not" / "model"):
            folder.mkdir(parents=True)
        with pytest.raises(SourceRefusedError):
            check_source(source.replace("ALLOWED", str(allowed)), [allowed])

    def test_that_are_links_out_are_refused(self, tmp_path: Path) -> None:
        allowed, secret = tmp_path / "allowed", tmp_path / "secret"
        (allowed / "model").mkdir(parents=True)
        secret.mkdir()
        (secret / "key.json").write_text("{}")
        (allowed / "link").symlink_to(secret)
        (allowed / "model" / "config.json").symlink_to(secret / "key.json")
        with pytest.raises(SourceRefusedError):
            check_source(f"folder:{allowed / 'link'}", [allowed])
        with pytest.raises(SourceRefusedError):
            opened(f"folder:{allowed / 'model'}", [allowed], downloads=tmp_path)

    def test_that_are_meant_are_taken(self, tmp_path: Path) -> None:
        (tmp_path / "model").mkdir()
        assert check_source(f"folder:{tmp_path}/./model", [tmp_path]) == f"folder:{tmp_path / 'model'}"
        for source in ("hub:owner/name", "hub:Owner-1/Some_Name.v2@refs/pr/1", "hub:a/b@0123abc"):
            assert check_source(source, []) == source


@ON_SQLITE_ALONE
class TestPaths:
    @pytest.mark.parametrize(
        "digest",
        [
            "..%2F..%2F..%2Fetc%2Fpasswd",
            "%2Fetc%2Fpasswd",
            "../" * 8 + "etc/passwd",
            "..%5C..%5Csecret",
            "a" * 63 + "/",
            "A" * 64,
            "a" * 64 + "%0A",
            "a" * 64 + "%00",
            "a" * 62 + "..",
        ],
    )
    def test_of_blobs_are_digests_alone(self, world: World, digest: str) -> None:
        worker = world.anybody.as_(world.enrolled("gpu", "worker").log_in()["token"])
        store = Path(world.server.settings.resolved_artifacts_url)
        before = sorted(store.rglob("*"))
        for method in ("GET", "PUT"):
            assert worker(method, f"/blobs/{digest}").status_code in {404, 405, 422}, method
        assert sorted(store.rglob("*")) == before

    @pytest.mark.parametrize("name", ["..%2Fadmin", "%2e%2e", "..", "a%00b", "x" * 65])
    def test_of_names_lead_nowhere(self, world: World, name: str) -> None:
        for path in ("/silos", "/models", "/users"):
            answer = world.admin("GET", f"{path}/{name}")
            assert answer.status_code in {200, 404, 405, 422}
            assert answer.status_code != 200 or name in {"%2e%2e", ".."}  # the client itself resolves these


@ON_SQLITE_ALONE
class TestCompressedBodies:
    @pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "gzip, gzip"])
    def test_are_not_unpacked(self, world: World, encoding: str) -> None:
        bomb = gzip.compress(b'{"name": "admin", "password": "' + b"x" * (32 << 20) + b'"}')
        assert len(bomb) < world.server.settings.max_body_bytes
        answer = world.anybody.client.post(
            f"{API_PREFIX}/sign-in",
            content=bomb,
            headers={"Content-Type": "application/json", "Content-Encoding": encoding},
        )
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")

    def test_of_blobs_are_kept_as_they_came(self, world: World) -> None:
        worker = world.anybody.as_(world.enrolled("gpu", "worker").log_in()["token"])
        answer = worker.client.put(
            f"{API_PREFIX}/blobs/{'0' * 64}",
            content=gzip.compress(os.urandom(100)),
            headers={"Authorization": f"Bearer {worker.token}", "Content-Encoding": "gzip"},
        )
        assert (answer.status_code, answer.json()["code"]) == (422, "wrong_digest")
