"""The listener for health and metrics, asked over loopback."""

from collections.abc import Iterator

import httpx2
import pytest

from splitlearn.errors import LinkError
from splitlearn.watching import METRICS_TYPE, Status, WatchListener

MISSING: list[str] = []
STATUS = Status(not_ready=lambda: MISSING, metrics=lambda: "trunkline_answer 42\n")


@pytest.fixture
def listener() -> Iterator[WatchListener]:
    MISSING.clear()
    with WatchListener(STATUS, host="127.0.0.1", port=0) as listener:
        yield listener


def get(listener: WatchListener, path: str, **headers: str) -> httpx2.Response:
    return httpx2.get(f"http://127.0.0.1:{listener.port}{path}", headers=headers, trust_env=False)


class TestListener:
    def test_is_alive(self, listener: WatchListener) -> None:
        assert get(listener, "/healthz").text == "ok\n"

    def test_is_alive_also_while_it_is_not_ready(self, listener: WatchListener) -> None:
        MISSING.append("broker: away")
        assert get(listener, "/healthz").status_code == 200

    def test_names_all_that_is_not_ready(self, listener: WatchListener) -> None:
        assert get(listener, "/readyz").status_code == 200
        MISSING.extend(["broker: away", "control plane: away"])
        answer = get(listener, "/readyz")
        assert (answer.status_code, answer.text) == (503, "broker: away\ncontrol plane: away\n")

    def test_tells_numbers_in_prometheus_type(self, listener: WatchListener) -> None:
        answer = get(listener, "/metrics?collect[]=all")
        assert (answer.text, answer.headers["Content-Type"]) == ("trunkline_answer 42\n", METRICS_TYPE)

    def test_tells_no_numbers_through_a_proxy(self, listener: WatchListener) -> None:
        assert get(listener, "/metrics", **{"X-Forwarded-For": "203.0.113.7"}).status_code == 403

    def test_knows_nothing_else(self, listener: WatchListener) -> None:
        assert get(listener, "/").status_code == 404

    def test_wants_its_token(self) -> None:
        with WatchListener(STATUS, host="127.0.0.1", port=0, token="word") as listener:
            assert get(listener, "/metrics").status_code == 403
            assert get(listener, "/metrics", Authorization="Bearer word").status_code == 200

    def test_says_which_port_is_in_use(self, listener: WatchListener) -> None:
        second = WatchListener(STATUS, host="127.0.0.1", port=listener.port)
        with pytest.raises(LinkError, match=f"cannot listen on 127.0.0.1:{listener.port} for health"):
            second.__enter__()

    def test_is_gone_after_its_block(self) -> None:
        with WatchListener(STATUS, host="127.0.0.1", port=0) as listener:
            url = f"http://127.0.0.1:{listener.port}/healthz"
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(url, trust_env=False)
