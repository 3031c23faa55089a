"""A proxy that answers in the control plane's place: commands wait, say so, and say a wish once."""

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from backend.cli.absence import Absence
from tests.unit.backend.cli.conftest import Terminal
from tests.unit.backend.jobs.conftest import Federation


class Proxy:
    """Answers some requests itself, and passes the others on."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._pass_on = httpx2.Client.request
        self.pages: list[httpx2.Response | Exception] = []
        self.asked: list[str] = []

        def request(client: httpx2.Client, method: str, url: str, **how: Any) -> httpx2.Response:
            return self._request(client, method, url, **how)

        patch.setattr("httpx2.Client.request", request)

    def _request(self, client: httpx2.Client, method: str, url: str, **how: Any) -> httpx2.Response:
        self.asked.append(method)
        if not self.pages:
            return self._pass_on(client, method, url, **how)
        page = self.pages.pop(0)
        if isinstance(page, Exception):
            raise page
        return page


@pytest.fixture
def proxy(admin: Terminal) -> Proxy:
    admin.patch.setattr("backend.cli.absence._FIRST_PAUSE_SECONDS", 0.01)
    return Proxy(admin.patch)


PAGES: dict[str, Callable[[], httpx2.Response | Exception]] = {
    "502": lambda: httpx2.Response(502, text="<html>"),
    "503": lambda: httpx2.Response(503, text="<html>"),
    "504": lambda: httpx2.Response(504, text="<html>"),
    "truncated": lambda: httpx2.RemoteProtocolError(
        "peer closed connection without sending complete message"
    ),
    "hung": lambda: httpx2.ReadTimeout("timed out"),
}


class TestAbsence:
    @pytest.mark.parametrize("kind", PAGES)
    def test_a_question_waits_and_says_so(self, kind: str, admin: Terminal, proxy: Proxy) -> None:
        proxy.pages = [PAGES[kind](), PAGES[kind]()]
        ended = admin("jobs", "list")
        assert (ended.exit_code, len(proxy.asked)) == (0, 3)
        assert "is away (" in ended.err
        assert "is back after" in ended.err

    @pytest.mark.parametrize("kind", PAGES)
    def test_a_wish_is_said_once(
        self, kind: str, admin: Terminal, proxy: Proxy, federation: Federation
    ) -> None:
        job = federation.submit()
        proxy.pages, proxy.asked = [PAGES[kind]()], []
        ended = admin("jobs", "cancel", job)
        assert (ended.exit_code, proxy.asked) == (12, ["POST"])
        assert "it may have done what was asked" in ended.err

    def test_patience_ends(self, admin: Terminal, proxy: Proxy) -> None:
        admin.patch.setattr("backend.cli.remote.Absence", lambda url: Absence(url, patience_seconds=0.05))
        proxy.pages = [httpx2.Response(502, text="<html>") for _ in range(50)]
        ended = admin("jobs", "list")
        assert (ended.exit_code, "answered 502 without a reason" in ended.err) == (12, True)
