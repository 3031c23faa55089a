"""Real exchanges of two silos with one worker, over a switchboard of memory links."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from splitlearn.errors import LinkError
from splitlearn.exchange import Exchange
from splitlearn.link import Connect, Link
from splitlearn.protocol import SiloProtocol, TrunkProtocol
from splitlearn.simulation.roster import WORKER_NAME, enrol
from splitlearn.spec import JobSpec
from splitlearn.wire import Codec, Phase, Ready, TurnStart

SPEC = JobSpec.parse({"model": "m", "silos": [{"name": name, "dataset": name} for name in ("a", "b")]})
ROSTER = enrol(SPEC)
READY = Ready(last_round=0, served=frozenset({Phase.TRAIN, Phase.EVAL}))
TURN = TurnStart(phase=Phase.TRAIN, round=1, first_step=0, num_steps=1)


def silo_side(connect: Connect, *, name: str = "a", window: int = 16, **how: Any) -> Exchange:
    """Silo ``name``'s exchange; ``how`` as in :class:`Exchange`."""
    protocol = SiloProtocol(
        ROSTER.terms[name],
        identity=ROSTER.silos[name],
        trust=ROSTER.trust,
        codec=Codec.FP32,
        window=window,
    )
    return Exchange(protocol, connect=connect, peer=WORKER_NAME, **how)


def trunk_side(connect: Connect, *, name: str = "a", window: int = 16, **how: Any) -> Exchange:
    """The worker's exchange with silo ``name``."""
    protocol = TrunkProtocol(
        ROSTER.terms[name],
        identity=ROSTER.worker,
        trust=ROSTER.trust,
        codec=Codec.FP32,
        window=window,
    )
    return Exchange(protocol, connect=connect, peer=f"silo {name!r}", **how)


async def unreachable() -> Link:
    raise LinkError("no route to host")


async def never() -> Link:
    await asyncio.Event().wait()
    raise AssertionError("nobody sets it")


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run a test that must not hang."""
    asyncio.run(asyncio.wait_for(test, timeout=30))


async def until(condition: Callable[[], bool]) -> None:
    """Let the others work until it is so."""
    while not condition():  # noqa: ASYNC110 - conditions of the code under test, which tells nobody
        await asyncio.sleep(0.002)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitlearn.exchange.exchange._FIRST_PAUSE_SECONDS", 0.005)
