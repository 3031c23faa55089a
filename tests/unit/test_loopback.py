"""What goes past the environment's proxies."""

import httpx2
import pytest

from splitlearn.loopback import UNPROXIED, proxy_for


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_this_machine_is_reached_without_the_environments_proxy(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with httpx2.Client(mounts=UNPROXIED) as client:
        own = client._transport_for_url(httpx2.URL(f"http://{host}:8470/"))
        other = client._transport_for_url(httpx2.URL("http://trunkline.example:8470/"))
        assert own is client._transport
        assert other is not client._transport
    assert proxy_for(f"ws://{host}:8471/relay") is None
    assert proxy_for("wss://trunkline.example/relay") is True
