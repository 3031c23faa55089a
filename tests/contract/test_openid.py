"""Signing in by an OpenID provider that is a process of its own; and what is not believed of one."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient

from backend.app_prefix import API_PREFIX
from backend.bootstrap import start
from backend.db import Database
from backend.openid import provider as provider_module
from tests.contract.openid_provider import CLIENT_ID, CLIENT_SECRET
from tests.unit.backend.conftest import Api, Clock, SharedClient, World, make_settings

pytestmark = pytest.mark.slow
ROSA = {
    "sub": "4711",
    "email": "Rosa@Clinic.Example",
    "email_verified": True,
    "groups": ["staff"],
}
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    command = [sys.executable, "-m", "tests.contract.openid_provider"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:  # noqa: S603 - ours
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


def ask(method: str, url: str, **given: Any) -> httpx2.Response:
    return httpx2.request(method, url, trust_env=False, timeout=60, **given)


@dataclass
class Stage:
    """A control plane that believes a provider, and what is told to that provider."""

    world: World
    issuer: str
    folder: Path
    wrong: dict[str, Any] = field(default_factory=dict)
    claims: dict[str, Any] = field(default_factory=lambda: dict(ROSA))

    def tell(self, *, rotate: bool = False) -> list[str]:
        told = {"claims": self.claims, "wrong": self.wrong, "rotate": rotate}
        asked: list[str] = ask("POST", f"{self.issuer}/control", json=told).json()["asked"]
        return asked

    def browser(self) -> TestClient:
        """One with a jar of its own."""
        return TestClient(self.world.anybody.client.app, base_url="https://trunkline.example")

    def answer_for(self, browser: TestClient) -> str:
        """Begin in a browser, and return the address to which the provider sends it back."""
        self.tell()
        begun = browser.get(f"{API_PREFIX}/openid/start", follow_redirects=False)
        assert begun.status_code == 302, begun.text
        sent_back = ask("GET", begun.headers["location"], follow_redirects=False)
        return str(sent_back.headers["location"])

    def sign_in(self, browser: TestClient | None = None) -> httpx2.Response:
        browser = browser or self.browser()
        return browser.get(self.answer_for(browser), follow_redirects=False)

    def refused(self) -> tuple[int, str]:
        browser = self.browser()
        answer = self.sign_in(browser)
        assert "__Host-trunkline" not in browser.cookies
        return answer.status_code, answer.json()["code"]

    def me(self, browser: TestClient) -> Any:
        answer = browser.get(f"{API_PREFIX}/me")
        assert answer.is_success, answer.text
        return answer.json()


Open = Callable[..., Stage]


def open_stage(folder: Path, database: Database, issuer: str, shared: SharedClient, **changes: Any) -> Stage:
    secret = folder / "secret"
    secret.write_text(CLIENT_SECRET + "\n")
    settings = make_settings(
        folder / "state",
        database,
        openid_issuer=issuer,
        openid_client_id=CLIENT_ID,
        openid_client_secret_file=secret,
        **changes,
    )
    clock = Clock()
    clock.moment = datetime.now(tz=UTC)  # the provider looks at a real one
    server, first = start(settings, clock=clock)
    assert first is not None
    anybody = Api(shared.with_server(server))
    admin = anybody.as_(
        anybody.ok("POST", "/sign-in", {"name": first.name, "password": first.password})["token"]
    )
    return Stage(World(server, clock, anybody, admin, first), issuer, folder)


@pytest.fixture
def opened(tmp_path: Path, database: Database, issuer: str, shared_client: SharedClient) -> Open:
    """Opens the stage, with settings of a test's own."""

    def open_with(**changes: Any) -> Stage:
        return open_stage(tmp_path, database, changes.pop("issuer", issuer), shared_client, **changes)

    return open_with


@pytest.fixture
def stage(opened: Open) -> Stage:
    stage = opened()
    body = {"name": "rosa", "role": "researcher", "email": "rosa@clinic.example"}
    stage.world.admin.ok("POST", "/users", body)
    return stage


class TestSignIn:
    def test_gives_a_browser_its_cookie(self, stage: Stage) -> None:
        browser = stage.browser()
        answer = stage.sign_in(browser)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        assert stage.me(browser)["name"] == "rosa"
        assert stage.world.anybody.ok("GET", "/openid") == {"issuer": stage.issuer}
        rows = [(row["action"], row["details"]) for row in stage.world.audit()[:2]]
        assert rows == [
            ("sign_in", {"second_factor": "openid"}),
            ("link_openid", {"email": "rosa@clinic.example"}),
        ]

    def test_knows_who_was_here_before_by_the_subject(self, stage: Stage) -> None:
        stage.sign_in()
        stage.claims["email"] = "rosa.married@clinic.example"
        browser = stage.browser()
        stage.sign_in(browser)
        assert stage.me(browser)["name"] == "rosa"

    def test_does_not_give_an_address_to_whoever_has_it_next(self, stage: Stage) -> None:
        stage.sign_in()
        stage.claims["sub"] = "another person"
        assert stage.refused() == (403, "openid_not_admitted")
        stage.world.admin.ok("PATCH", "/users/rosa", {"email": "old@clinic.example"})
        stage.world.admin.ok("PATCH", "/users/rosa", {"email": "rosa@clinic.example"})
        browser = stage.browser()
        stage.sign_in(browser)
        assert stage.me(browser)["name"] == "rosa"

    def test_follows_a_provider_that_takes_new_keys(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(provider_module, "_KEYS_AGAIN_SECONDS", 0.0)
        assert stage.sign_in().status_code == 303
        stage.tell(rotate=True)
        assert stage.sign_in().status_code == 303

    def test_asks_for_description_and_keys_once(self, stage: Stage) -> None:
        stage.tell()
        stage.sign_in()
        stage.sign_in()
        assert stage.tell() == []

    def test_is_not_asked_for_a_second_factor_of_ours(self, stage: Stage) -> None:
        with stage.world.server.database.write() as session:
            session.connection().exec_driver_sql("UPDATE organizations SET second_factor = 'everybody'")
        browser = stage.browser()
        stage.sign_in(browser)
        assert stage.me(browser)["permissions"] == ["read", "run_jobs"]


class TestWhoIsLetIn:
    def test_nobody_unknown(self, stage: Stage) -> None:
        stage.claims |= {"sub": "x", "email": "otto@clinic.example"}
        assert stage.refused() == (403, "openid_not_admitted")

    def test_nobody_disabled(self, stage: Stage) -> None:
        stage.world.admin.ok("PATCH", "/users/rosa", {"disabled": True})
        assert stage.refused() == (403, "openid_not_admitted")

    @pytest.mark.parametrize("verified", [False, None, "true", 1])
    def test_nobody_whose_address_is_not_verified(self, stage: Stage, verified: object) -> None:
        stage.claims["email_verified"] = verified
        assert stage.refused() == (403, "openid_not_admitted")

    def test_who_is_new_where_users_are_made_so(self, opened: Open) -> None:
        stage = opened(
            openid_provision=True,
            openid_domains="clinic.example, other.example",
            openid_roles="leads=admin,staff=auditor",
        )
        browser = stage.browser()
        stage.sign_in(browser)
        me = stage.me(browser)
        assert (me["name"], me["role"]) == ("rosa", "auditor")
        assert stage.world.anybody.refused("POST", "/sign-in", {"name": "rosa", "password": "x"})[0] == 401
        stage.claims["groups"] = ["staff", "leads"]
        stage.sign_in(browser)
        assert stage.me(browser)["role"] == "admin"
        stage.claims["groups"] = ["visitors"]
        assert stage.refused() == (403, "openid_not_admitted")
        stage.claims |= {"sub": "y", "email": "rosa@elsewhere.example", "groups": ["staff"]}
        assert stage.refused() == (403, "openid_not_admitted")
        stage.claims["email"] = "rosa@other.example"
        stage.sign_in(browser)
        assert stage.me(browser)["name"] == "rosa-2"

    def test_not_to_an_account_of_the_same_name(self, opened: Open) -> None:
        stage = opened(openid_provision=True)
        stage.claims["email"] = "admin@clinic.example"
        browser = stage.browser()
        stage.sign_in(browser)
        me = stage.me(browser)
        assert (me["name"], me["role"]) == ("admin-2", "researcher")


class TestTokens:
    @pytest.mark.parametrize(
        "claims",
        [
            {"aud": "another program"},
            {"aud": ["another program"]},
            {"aud": [CLIENT_ID, "another program"]},
            {"azp": "another program"},
            {"nonce": "another"},
            {"nonce": None},
            {"iss": "https://elsewhere.example"},
            {"exp": 1_000_000_000},
            {"exp": None},
            {"iat": 4_000_000_000},
            {"sub": None},
            {"sub": ""},
            {"aud": None},
        ],
        ids=str,
    )
    def test_for_another_use_are_refused(self, stage: Stage, claims: dict[str, Any]) -> None:
        stage.wrong["claims"] = claims
        assert stage.refused() == (401, "openid_refused")

    @pytest.mark.parametrize("signature", ["none", "client secret", "own key"])
    def test_not_signed_by_the_provider_are_refused(self, stage: Stage, signature: str) -> None:
        stage.wrong["signature"] = signature
        assert stage.refused() == (401, "openid_refused")


class TestState:
    def test_is_good_for_once(self, stage: Stage) -> None:
        browser = stage.browser()
        answer = stage.answer_for(browser)
        kept = dict(browser.cookies)
        assert browser.get(answer, follow_redirects=False).status_code == 303
        for name, value in kept.items():
            browser.cookies.set(name, value)
        again = browser.get(answer, follow_redirects=False)
        assert (again.status_code, again.json()["code"]) == (401, "openid_not_begun")

    def test_of_another_browser_is_refused(self, stage: Stage) -> None:
        answer = stage.answer_for(stage.browser())
        for other in (stage.browser(), stage.browser()):
            refused = other.get(answer, follow_redirects=False)
            assert (refused.status_code, refused.json()["code"]) == (401, "openid_not_begun")
            stage.answer_for(other)  # now it has begun one, too: but not this one

    def test_is_refused_when_it_is_old_or_changed(self, stage: Stage) -> None:
        browser = stage.browser()
        answer = stage.answer_for(browser)
        changed = browser.get(answer.replace("state=", "state=x"), follow_redirects=False)
        assert changed.json()["code"] == "openid_not_begun"
        stage.world.clock.advance(minutes=10)
        assert browser.get(answer, follow_redirects=False).json()["code"] == "openid_not_begun"

    def test_forged_cookie_is_refused(self, stage: Stage) -> None:
        browser = stage.browser()
        answer = stage.answer_for(browser)
        for forged in ("", "x", "AAAA" * 30):
            cookie = {"cookie": f"__Host-trunkline-openid={forged}"}
            refused = stage.browser().get(answer, headers=cookie, follow_redirects=False)
            assert refused.json()["code"] == "openid_not_begun"

    def test_answers_of_errors_and_of_others_are_refused(self, stage: Stage) -> None:
        for wrong in ({"error": "access_denied"}, {"iss": "https://elsewhere.example"}, {"code": "made up"}):
            stage.wrong = {"answer": wrong}
            assert stage.refused() == (401, "openid_refused"), wrong


class TestPage:
    ACCEPT = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"

    def test_is_what_a_browser_shows_of_a_refusal(self, stage: Stage) -> None:
        stage.wrong = {"answer": {"error": "<script>alert(1)</script>"}}
        browser = stage.browser()
        answer = stage.answer_for(browser)
        shown = browser.get(answer, headers={"Accept": self.ACCEPT}, follow_redirects=False)
        assert (shown.status_code, shown.headers["content-type"]) == (401, "text/html; charset=utf-8")
        assert "the provider vouches for nobody" in shown.text
        assert 'href="/api/v1/openid/start"' in shown.text
        assert "openid_refused" in shown.text
        assert "<script>" not in shown.text
        assert "default-src 'none'" in shown.headers["content-security-policy"]
        assert browser.get(answer, follow_redirects=False).json()["code"] == "openid_not_begun"

    def test_is_for_these_routes_alone(self, stage: Stage) -> None:
        shown = stage.browser().get(f"{API_PREFIX}/me", headers={"Accept": self.ACCEPT})
        assert shown.json()["code"] == "not_signed_in"


class TestProvider:
    @pytest.mark.parametrize(
        "lie",
        [
            {"issuer": "https://elsewhere.example"},
            {"token_endpoint": "ftp://127.0.0.1/token"},
            {"jwks_uri": "file:///etc/passwd"},
            {"token_endpoint": None},
        ],
        ids=str,
    )
    def test_that_describes_itself_wrongly_is_not_used(self, stage: Stage, lie: dict[str, Any]) -> None:
        stage.wrong["configuration"] = lie
        stage.tell()
        refused = stage.browser().get(f"{API_PREFIX}/openid/start", follow_redirects=False)
        assert (refused.status_code, refused.json()["code"]) == (503, "openid_provider_away")

    def test_that_is_away_is_told(self, opened: Open) -> None:
        stage = opened(issuer="http://127.0.0.1:1")
        refused = stage.browser().get(f"{API_PREFIX}/openid/start", follow_redirects=False)
        assert (refused.status_code, refused.json()["code"]) == (503, "openid_provider_away")
