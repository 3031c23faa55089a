"""Notices: written with what they tell of, sent until they arrive, and sent to nobody else."""

import hashlib
import hmac
import ipaddress
import json
import socket
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from backend.db import Database
from backend.db.models import JobState
from backend.jobs.moves import Why, move
from backend.jobs.repository import lock_job
from backend.notices import webhook
from backend.notices.errors import DeliveryError, TargetRefusedError
from backend.notices.postman import GIVEN_UP_AFTER, KEPT, LONGEST_PAUSE, pause_after, search, send_due
from backend.notices.webhook import ID_HEADER, SIGNATURE_HEADER, check_url, is_public
from splitlearn.identity import FederationRoot
from tests.unit.backend.conftest import (
    ON_SQLITE_ALONE,
    Clock,
    SharedClient,
    World,
    make_settings,
    open_world,
)
from tests.unit.backend.jobs.conftest import build_federation


@dataclass
class Receiver:
    """A host that takes webhooks; a test says what it answers."""

    server: ThreadingHTTPServer
    status: int = 204
    location: str = ""
    holds: threading.Event | None = None
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/hook?for=trunkline"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            host.got.append(({name.lower(): text for name, text in self.headers.items()}, body))
            if host.holds is not None:
                host.holds.wait(20)
            self.send_response(host.status)
            if host.location:
                self.send_header("Location", host.location)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    host = Receiver(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
    thread = threading.Thread(target=host.server.serve_forever)
    thread.start()
    yield host
    host.server.shutdown()
    thread.join()
    host.server.server_close()


@dataclass
class MailServer:
    """Takes e-mail as RFC 5321 says, one connection after the other; a test says what it refuses."""

    listener: socket.socket
    refuses: bool = False
    letters: list[tuple[str, str]] = field(default_factory=list)

    @property
    def port(self) -> int:
        port: int = self.listener.getsockname()[1]
        return port

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb") as stream:
                self._converse(stream)

    def _converse(self, stream: Any) -> None:
        def say(line: str) -> None:
            stream.write(line.encode() + b"\r\n")
            stream.flush()

        say("220 mail.example")
        receiver = ""
        while line := stream.readline().decode().strip():
            word = line.split()[0].upper()
            if word == "RCPT":
                receiver = line.partition(":")[2].strip("<>")
                say("550 no such box" if self.refuses else "250 yes")
            elif word == "DATA":
                say("354 go on")
                lines = iter(stream.readline, b".\r\n")
                self.letters.append((receiver, b"".join(lines).decode()))
                say("250 taken")
            elif word == "QUIT":
                say("221 bye")
                return
            else:
                say("250 yes")


@pytest.fixture
def mail() -> Iterator[MailServer]:
    server = MailServer(socket.create_server(("127.0.0.1", 0)))
    thread = threading.Thread(target=server.serve)
    thread.start()
    yield server
    server.listener.shutdown(socket.SHUT_RDWR)
    server.listener.close()
    thread.join()


@pytest.fixture
def world(
    tmp_path: Path, database: Database, clock: Clock, shared_client: SharedClient, mail: MailServer
) -> Iterator[World]:
    settings = make_settings(
        tmp_path / "state",
        database,
        webhook_private=True,
        notice_seconds=0.5,
        smtp_host="127.0.0.1",
        smtp_port=mail.port,
        smtp_security="none",
        smtp_from="trunkline@platform.example",
    )
    world = open_world(settings, clock, shared_client)
    yield world
    world.server.database.dispose()


def add(world: World, target: str, *topics: str, kind: str = "webhook", name: str = "ops") -> str:
    body = {"name": name, "kind": kind, "target": target, "topics": list(topics) or None}
    return str(world.admin.ok("POST", "/notice-channels", body)["secret"])


def sent(world: World, name: str = "ops") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = world.admin.ok("GET", f"/notice-channels/{name}/notices")["items"]
    return rows


class TestWebhook:
    def test_gets_a_signed_notice_once(self, world: World, receiver: Receiver) -> None:
        secret = add(world, receiver.url)
        asked = world.admin.ok("POST", "/notice-channels/ops/test")
        assert send_due(world.server) == 1
        assert send_due(world.server) == 0
        [(headers, body)] = receiver.got
        moment, _, shown = headers[SIGNATURE_HEADER.lower()].removeprefix("t=").partition(",v1=")
        signed = f"{moment}.".encode() + body
        assert shown == hmac.new(bytes.fromhex(secret), signed, hashlib.sha256).hexdigest()
        content = json.loads(body)
        assert content["id"] == headers[ID_HEADER.lower()] == asked["id"]
        assert (content["topic"], content["facts"]) == ("test", {"asked_by": "admin"})
        assert sent(world)[0]["delivered_at"] is not None

    def test_is_tried_again_until_it_arrives(self, world: World, receiver: Receiver) -> None:
        add(world, receiver.url)
        world.admin.ok("POST", "/notice-channels/ops/test")
        receiver.status = 500
        send_due(world.server)
        assert send_due(world.server) == 0
        [row] = sent(world)
        assert (row["attempts"], row["error"], row["delivered_at"]) == (1, "the host answered 500", None)
        receiver.status = 200
        world.clock.advance(seconds=30)
        send_due(world.server)
        [row] = sent(world)
        assert (row["attempts"], row["error"], row["due_at"]) == (2, "", None)
        ids = [headers[ID_HEADER.lower()] for headers, _ in receiver.got]
        assert len(set(ids)) == 1

    @ON_SQLITE_ALONE
    def test_is_given_up_after_three_days_and_forgotten_after_thirty(
        self, world: World, receiver: Receiver
    ) -> None:
        add(world, receiver.url)
        world.admin.ok("POST", "/notice-channels/ops/test")
        receiver.status = 404
        world.clock.advance(days=GIVEN_UP_AFTER.days)
        send_due(world.server)
        world.admin = world.sign_in("admin", world.first.password)
        assert sent(world)[0]["due_at"] is None
        world.clock.advance(days=KEPT.days, seconds=1)
        search(world.server)
        world.admin = world.sign_in("admin", world.first.password)
        assert sent(world) == []

    @ON_SQLITE_ALONE
    def test_follows_no_redirect(self, world: World, receiver: Receiver) -> None:
        add(world, receiver.url)
        world.admin.ok("POST", "/notice-channels/ops/test")
        receiver.status, receiver.location = 307, receiver.url
        send_due(world.server)
        assert (len(receiver.got), sent(world)[0]["error"]) == (1, "the host answered 307")

    @ON_SQLITE_ALONE
    def test_to_a_slow_host_ends_in_time(self, world: World, receiver: Receiver) -> None:
        add(world, receiver.url)
        world.admin.ok("POST", "/notice-channels/ops/test")
        receiver.holds = threading.Event()
        try:
            send_due(world.server)
        finally:
            receiver.holds.set()
        assert "did not take it" in sent(world)[0]["error"]

    def test_waits_longer_each_time(self) -> None:
        waits = [pause_after(attempts) for attempts in (1, 2, 3, 8, 500)]
        assert waits == [
            *(timedelta(seconds=number) for number in (30, 60, 120)),
            LONGEST_PAUSE,
            LONGEST_PAUSE,
        ]


class TestWhereItMayGo:
    @pytest.mark.parametrize(
        "url",
        [
            "http://hooks.example/",
            "ftp://hooks.example/",
            "https://",
            "https://user:secret@hooks.example/",
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://10.1.2.3/",
            "https://169.254.169.254/latest/meta-data",
            "https://[fe80::1]/",
            "https://[64:ff9b::a00:1]/",
            "https://0.0.0.0/",
            "https://hooks.example:99999/",
            "https://h\u00f6oks.example/",
            "file:///etc/passwd",
            "https://hooks example/",
            "https://hooks.example/a b",
            "https://[::1",
        ],
    )
    def test_refuses_what_is_not_public(self, url: str) -> None:
        with pytest.raises(TargetRefusedError):
            check_url(url, allow_private=False)

    def test_looks_at_every_address_that_a_name_has(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def found(*_: object, **__: object) -> list[Any]:
            return [(0, 0, 0, "", (address, 443)) for address in ("93.184.216.34", "10.0.0.7")]

        monkeypatch.setattr(socket, "getaddrinfo", found)
        with pytest.raises(DeliveryError, match="private, loopback or link-local"):
            webhook._resolve("hooks.example", 443, allow_private=False)

    def test_connects_to_the_address_that_was_looked_at(
        self, world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The name is asked for once: the second answer, which would lead elsewhere, is never seen."""
        asked: list[str] = []
        real = socket.getaddrinfo

        def found(host: str, port: int, **_: object) -> list[Any]:
            if host != "hooks.example":
                return real(host, port)
            asked.append(host)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

        monkeypatch.setattr(socket, "getaddrinfo", found)
        add(world, receiver.url.replace("127.0.0.1", "hooks.example"))
        world.admin.ok("POST", "/notice-channels/ops/test")
        send_due(world.server)
        [(headers, _)] = receiver.got
        assert headers["host"].startswith("hooks.example:")
        assert asked == ["hooks.example"]

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("8.8.8.8", True),
            ("2606:4700::1", True),
            ("224.0.0.1", False),
            ("100.64.0.1", False),
            ("::", False),
        ],
    )
    def test_knows_public_addresses(self, text: str, expected: bool) -> None:  # noqa: FBT001
        assert is_public(ipaddress.ip_address(text)) is expected

    @ON_SQLITE_ALONE
    def test_setting_a_channel_is_refused_with_a_sentence(self, world: World) -> None:
        for kind, target in (("email", "no address"), ("email", "a@b\nBcc: c@d"), ("webhook", "gopher://x/")):
            body = {"name": "ops", "kind": kind, "target": target}
            assert world.admin.refused("POST", "/notice-channels", body) == (422, "target_refused")
        add(world, "https://hooks.example/")
        body = {"name": "ops", "kind": "webhook", "target": "https://hooks.example/"}
        assert world.admin.refused("POST", "/notice-channels", body) == (409, "name_taken")
        world.admin.ok("DELETE", "/notice-channels/ops")
        assert world.admin.refused("POST", "/notice-channels/ops/test") == (404, "not_found")
        row = world.audit()[0]
        assert (row["action"], row["details"]["host"]) == ("remove_notice_channel", "hooks.example")


class TestOfOurOwn:
    @ON_SQLITE_ALONE
    def test_failure_keeps_no_other_notice_back(
        self, world: World, receiver: Receiver, mail: MailServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add(world, receiver.url)
        add(world, "rosa@clinic.example", kind="email", name="rosa")
        for name in ("ops", "rosa"):
            world.admin.ok("POST", f"/notice-channels/{name}/test")

        def broken(*_: object, **__: object) -> None:
            raise RuntimeError

        monkeypatch.setattr(webhook, "post", broken)
        assert send_due(world.server) == 2
        assert "error of the server's own" in sent(world)[0]["error"]
        assert len(mail.letters) == 1


class TestEmail:
    def test_is_handed_to_the_operators_server(self, world: World, mail: MailServer) -> None:
        add(world, "rosa@clinic.example", kind="email")
        world.admin.ok("POST", "/notice-channels/ops/test")
        send_due(world.server)
        [(receiver, letter)] = mail.letters
        assert receiver == "rosa@clinic.example"
        assert "From: trunkline@platform.example" in letter
        assert "Subject: A test of the channel ops" in letter
        assert "asked_by: admin" in letter

    def test_is_tried_again(self, world: World, mail: MailServer) -> None:
        add(world, "rosa@clinic.example", kind="email")
        world.admin.ok("POST", "/notice-channels/ops/test")
        mail.refuses = True
        send_due(world.server)
        assert "did not take it" in sent(world)[0]["error"]
        mail.refuses = False
        world.clock.advance(minutes=1)
        send_due(world.server)
        assert len(mail.letters) == 1


class TestTopics:
    def test_are_told_with_what_happens(self, world: World, receiver: Receiver) -> None:
        add(world, receiver.url)
        add(world, receiver.url, "certificate_expires", name="keys")
        federation = build_federation(world)
        job_id = federation.submit()
        federation.look()
        world.clock.advance(minutes=world.server.settings.notice_approval_minutes)
        search(world.server)
        search(world.server)
        assert [row["topic"] for row in sent(world)] == ["approval_awaited"] * 2
        world.clock.advance(seconds=1)
        self.fail(world, job_id)
        assert [row["topic"] for row in sent(world)][2:] == ["job_failed"]
        assert "job has failed: broken" in sent(world)[2]["subject"]
        world.clock.advance(days=world.server.settings.certificate_days - 20)
        search(world.server)
        world.admin = world.sign_in("admin", world.first.password)
        assert {row["topic"] for row in sent(world, "keys")} == {"certificate_expires"}
        assert "silo north ends within 30 days" in str(sent(world, "keys"))

    def fail(self, world: World, job_id: str) -> None:
        with world.server.database.write() as session:
            job = lock_job(session, uuid.UUID(job_id))
            assert job is not None
            why = Why("broken", "test", "was broken", "here", "retry it")
            move(session, job, JobState.FAILED, why, now=world.clock())

    def test_of_another_organisation_are_not_told(self, world: World, receiver: Receiver) -> None:
        add(world, receiver.url)
        with world.server.database.write() as session:
            session.connection().exec_driver_sql("UPDATE notice_channels SET topics = 'certificate_expires'")
        federation = build_federation(world)
        self.fail(world, federation.submit())
        assert sent(world) == []


class TestRevocation:
    def test_that_waits_for_the_root_is_told(
        self, tmp_path: Path, database: Database, clock: Clock, shared_client: SharedClient
    ) -> None:
        settings = make_settings(
            tmp_path / "offline",
            database,
            webhook_private=True,
            root_public_key=FederationRoot.generate().public_key.raw.hex(),
        )
        world = open_world(settings, clock, shared_client)
        add(world, "http://127.0.0.1:1/")
        program = world.invited("north")
        program.enrol()
        with world.server.database.write() as session:
            session.connection().exec_driver_sql("UPDATE silos SET serial = '77'")
        world.admin.ok("POST", "/silos/north/revoke")
        [row] = sent(world)
        assert (row["topic"], "silo north" in row["subject"]) == ("revocation_pending", True)
        world.server.database.dispose()
