import gzip
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import httpx2
import pytest

from splitlearn.control_plane.errors import LeaseLostError, RefusedError, UnreachableError
from splitlearn.control_plane.requests import Absent, Back, Requests
from splitlearn.control_plane.schemas import TicketAnswer
from tests.unit.control_plane.conftest import Answer, run

Make = Callable[..., Requests]
TICKET = {"ticket": "t", "gateway_url": "ws://g", "valid_seconds": 60.0}


def failing(times: int, answer: Answer) -> Answer:
    left = [times]

    def respond(request: httpx2.Request) -> httpx2.Response:
        if left[0]:
            left[0] -= 1
            raise httpx2.ConnectError("refused")
        return answer(request)

    return respond


def ticket(_: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(200, json=TICKET)


def refuse(status: int, code: str) -> Answer:
    return lambda _: httpx2.Response(status, json={"code": code, "message": "no", "remedy": "ask"})


class TestAsk:
    def test_waits_while_nobody_answers_and_tells(self, answering: Make) -> None:
        told: list[Absent | Back] = []

        async def test() -> None:
            requests = answering(failing(2, ticket), on_reach=told.append)
            assert (await requests.ask("GET", "/x", TicketAnswer)).ticket == "t"
            assert [type(change) for change in told] == [Absent, Absent, Back]

        run(test())

    def test_pauses_grow(self, answering: Make) -> None:
        told: list[Absent | Back] = []

        async def test() -> None:
            await answering(failing(3, ticket), on_reach=told.append).ask("GET", "/x", TicketAnswer)
            pauses = [change.pause_seconds for change in told if isinstance(change, Absent)]
            assert pauses == sorted(set(pauses))

        run(test())

    def test_gives_up_when_patience_is_over(self, answering: Make) -> None:
        async def test() -> None:
            requests = answering(failing(10_000, ticket))
            with pytest.raises(UnreachableError, match="cannot reach the control plane at http://there"):
                await requests.ask("GET", "/x", TicketAnswer, patience_seconds=0.01)

        run(test())

    def test_a_proxys_absence_is_waited_out(self, answering: Make) -> None:
        answers = iter([httpx2.Response(502, text="<html>"), httpx2.Response(200, json=TICKET)])

        async def test() -> None:
            requests = answering(lambda _: next(answers))
            assert (await requests.ask("GET", "/x", TicketAnswer)).ticket == "t"

        run(test())

    def test_a_refusal_has_its_type_sentence_and_remedy(self, answering: Make) -> None:
        async def test() -> None:
            with pytest.raises(LeaseLostError, match=r"^no; ask$") as caught:
                await answering(refuse(409, "lease_lost")).ask("GET", "/x", TicketAnswer)
            assert caught.value.status == 409

        run(test())

    def test_an_unknown_word_is_kept(self, answering: Make) -> None:
        async def test() -> None:
            with pytest.raises(RefusedError) as caught:
                await answering(refuse(418, "teapot")).ask("GET", "/x", TicketAnswer)
            assert caught.value.code == "teapot"

        run(test())

    def test_another_version_at_the_address_is_named(self, answering: Make) -> None:
        async def test() -> None:
            with pytest.raises(RefusedError, match="as no control plane of this version does"):
                await answering(lambda _: httpx2.Response(200, json={})).ask("GET", "/x", TicketAnswer)

        run(test())

    @pytest.mark.parametrize("text", ["<html>Back soon</html>", '{"ticket": "t", "gateway_u', ""])
    def test_what_is_no_json_is_waited_out_and_named(self, text: str, answering: Make) -> None:
        told: list[Absent | Back] = []
        answers = iter([httpx2.Response(200, text=text), httpx2.Response(200, json=TICKET)])

        async def test() -> None:
            requests = answering(lambda _: next(answers), on_reach=told.append)
            assert (await requests.ask("GET", "/x", TicketAnswer)).ticket == "t"

        run(test())
        assert isinstance(told[0], Absent)
        assert "what is no JSON, or only its beginning" in told[0].sentence

    @pytest.mark.parametrize("status", [500, 502, 503, 504, 521])
    def test_no_proxys_page_ends_a_party_packed_or_not(self, status: int, answering: Make) -> None:
        page = gzip.compress(b"<html>upstream</html>")
        packed = httpx2.Response(status, content=page, headers={"Content-Encoding": "gzip"})
        answers = iter([httpx2.Response(status, text="<html>"), packed, httpx2.Response(200, json=TICKET)])

        async def test() -> None:
            requests = answering(lambda _: next(answers))
            assert (await requests.ask("GET", "/x", TicketAnswer)).ticket == "t"

        run(test())

    def test_a_bug_of_the_control_planes_own_is_no_absence(self, answering: Make) -> None:
        async def test() -> None:
            with pytest.raises(RefusedError, match="no; ask"):
                await answering(refuse(500, "internal")).ask("GET", "/x", TicketAnswer)

        run(test())


class _Compressing(BaseHTTPRequestHandler):
    """Answers with what unpacks to far more than was sent."""

    asked_for: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:  # the name is the library's
        self.asked_for.append(self.headers.get("Accept-Encoding"))
        body = gzip.compress(b" " * (64 << 20) + b"{}")
        self.send_response(200)
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class TestCompressedAnswers:
    def test_are_not_asked_for_and_refused(self) -> None:
        server = HTTPServer(("127.0.0.1", 0), _Compressing)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()

        async def test() -> None:
            requests = Requests(f"http://127.0.0.1:{server.server_port}")
            with pytest.raises(RefusedError, match="compressed"):
                await requests.send("GET", "/x", patience_seconds=5)
            await requests.close()

        try:
            run(test())
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
        assert _Compressing.asked_for == ["identity"]
