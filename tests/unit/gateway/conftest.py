"""A control plane's key, tickets under it, frames, and gateways on loopback."""

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from backend.gateway import Conversation, GatewaySettings, Role, issue_ticket
from splitlearn.identity import SigningKey
from splitlearn.wire import Envelope, Kind, job_tag

CONTROL_PLANE = SigningKey.from_private_bytes(bytes(range(32)))
TALK = Conversation("tumours-7", 1, "clinic", "gpu-1", epoch=3)
NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


def gateway_settings(**fields: Any) -> GatewaySettings:
    """Settings of a gateway on a free port of loopback."""
    base: dict[str, Any] = {"port": 0, "ticket_public_key": CONTROL_PLANE.public_key.raw.hex()}
    return GatewaySettings(**{**base, **fields})


def ticket(role: Role, *, talk: Conversation = TALK, seconds: int = 60, **changes: Any) -> str:
    """A fresh ticket, of this conversation with some fields changed."""
    now = datetime.now(tz=UTC)
    return issue_ticket(replace(talk, **changes), role=role, now=now, seconds=seconds, key=CONTROL_PLANE)


def silo_ticket(**changes: Any) -> str:
    """The silo's."""
    return ticket(Role.SILO, **changes)


def worker_ticket(**changes: Any) -> str:
    """The worker's."""
    return ticket(Role.WORKER, **changes)


def frame(role: Role, content: bytes = b"sealed", *, talk: Conversation = TALK, **changes: Any) -> bytes:
    """A frame that this side may send, with some fields of its envelope changed."""
    fields: dict[str, Any] = {
        "kind": Kind.SEALED,
        "direction": role.direction,
        "replica": talk.replica,
        "body_bytes": len(content),
        "epoch": talk.epoch,
        "job_tag": job_tag(talk.job),
    }
    return Envelope(**{**fields, **changes}).pack() + content


def run(test: Coroutine[Any, Any, object]) -> None:
    """Run a test that must not hang."""
    asyncio.run(asyncio.wait_for(test, timeout=20))
