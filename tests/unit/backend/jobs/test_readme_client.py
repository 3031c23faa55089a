"""The client of the README, run as it stands there."""

import re
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.unit.backend.conftest import ON_SQLITE_ALONE
from tests.unit.backend.jobs.conftest import Federation

README = Path(__file__).parents[4] / "README.md"


class ClientOfTheTest:
    """Sends what the README's client would, to the application of the test."""

    def __init__(self, federation: Federation, *, base_url: str, headers: dict[str, str]) -> None:
        self._client = federation.world.admin.client
        self._prefix, self._headers = base_url.removeprefix("http://127.0.0.1:8470"), headers

    def post(self, path: str, *, json: Any) -> httpx2.Response:
        return self._client.post(self._prefix + path, json=json, headers=self._headers)


@ON_SQLITE_ALONE
def test_submits_a_job(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [code] = re.findall(
        r"^```python\n(import httpx2\n.*?)^```$", README.read_text(), flags=re.DOTALL | re.MULTILINE
    )
    assert len(code.replace("\n\n", "\n").splitlines()) == 5
    monkeypatch.setattr(httpx2, "Client", lambda **given: ClientOfTheTest(federation, **given))
    token = federation.world.admin.token
    assert token is not None
    exec(code.replace("TOKEN", token), {})  # noqa: S102 - our own page
    job_id, state, *_ = capsys.readouterr().out.split()
    assert state == federation.job(job_id)["state"] == "awaiting_approval"
