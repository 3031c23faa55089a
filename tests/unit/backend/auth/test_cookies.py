"""Browsers: a cookie that no script reads, and no page but ours that makes it work."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from backend.app import create_app
from backend.app_prefix import API_PREFIX
from backend.auth.cookies import CSRF_HEADER, csrf_of
from tests.unit.backend.conftest import World


@pytest.fixture
def browser(world: World) -> Iterator[TestClient]:
    """A browser with a jar of its own, before the sign-in; the server's address is https."""
    with TestClient(create_app(world.server), base_url="https://trunkline.example") as client:
        yield client


def sign_in(world: World, browser: TestClient) -> Response:
    body = {"name": "admin", "password": world.first.password, "cookie": True}
    answer = browser.post(f"{API_PREFIX}/sign-in", json=body)
    assert answer.is_success, answer.text
    return answer


class TestCookie:
    def test_is_for_this_host_and_no_script(self, world: World, browser: TestClient) -> None:
        answer = sign_in(world, browser)
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith("__Host-trunkline=tks_")
        attributes = {part.strip().lower() for part in cookie.split(";")[1:]}
        assert {"httponly", "secure", "samesite=strict", "path=/"} <= attributes
        assert not any(part.startswith("domain") for part in attributes)
        assert answer.json()["token"] is None
        assert "tks_" not in answer.text

    def test_signs_in_until_it_is_signed_out(self, world: World, browser: TestClient) -> None:
        word = sign_in(world, browser).json()["csrf_token"]
        me = browser.get(f"{API_PREFIX}/me").json()
        assert (me["name"], me["csrf_token"]) == ("admin", word)
        answer = browser.post(f"{API_PREFIX}/sign-out", headers={CSRF_HEADER: word})
        assert answer.status_code == 204
        assert 'trunkline="";' in answer.headers["set-cookie"]
        assert browser.get(f"{API_PREFIX}/me").status_code == 401

    def test_is_not_set_where_nobody_asked_for_it(self, world: World, browser: TestClient) -> None:
        body = {"name": "admin", "password": world.first.password}
        answer = browser.post(f"{API_PREFIX}/sign-in", json=body)
        assert "set-cookie" not in answer.headers
        assert (answer.json()["token"][:4], answer.json()["csrf_token"]) == ("tks_", None)


class TestCrossSite:
    @pytest.mark.parametrize("word", [None, "", "x", "0" * 64, "\u00fc"])
    def test_requests_that_change_something_are_refused(
        self, world: World, browser: TestClient, word: str | None
    ) -> None:
        sign_in(world, browser)
        headers = {} if word is None else {CSRF_HEADER: word.encode("latin-1").decode("latin-1")}
        raw = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
        for method, path in (("POST", "/projects"), ("PATCH", "/users/admin"), ("DELETE", "/models/x")):
            answer = browser.request(method, f"{API_PREFIX}{path}", json={"name": "second"}, headers=raw)
            assert (answer.status_code, answer.json()["code"]) == (403, "cross_site"), path

    def test_another_sessions_word_is_refused(self, world: World, browser: TestClient) -> None:
        sign_in(world, browser)
        assert world.admin.token is not None
        headers = {CSRF_HEADER: csrf_of(world.admin.token)}
        answer = browser.post(f"{API_PREFIX}/projects", json={"name": "second"}, headers=headers)
        assert answer.status_code == 403

    def test_requests_with_the_word_pass(self, world: World, browser: TestClient) -> None:
        word = sign_in(world, browser).json()["csrf_token"]
        answer = browser.post(f"{API_PREFIX}/projects", json={"name": "second"}, headers={CSRF_HEADER: word})
        assert answer.status_code == 201

    def test_requests_with_a_token_need_no_word(self, world: World, browser: TestClient) -> None:
        sign_in(world, browser)
        headers = {"Authorization": f"Bearer {world.admin.token}"}
        answer = browser.post(f"{API_PREFIX}/projects", json={"name": "second"}, headers=headers)
        assert answer.status_code == 201
        assert browser.get(f"{API_PREFIX}/me", headers=headers).json()["csrf_token"] is None
