"""The commands and environments of a stage's parts: those of an operator, on this machine."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from splitlearn.party_environment import party_environment
from splitlearn.processes import Program

_STOP_SECONDS = 20.0


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where everything of a stage is.

    Attributes:
        folder: Holds a folder for each part.
        database_url, broker_url: Of the servers.
        api_port, gateway_port: Where both listen.
        public_url, gateway_url: Where parties find them.
        watch_ports: Where each worker tells its numbers.
        models: Below it, model folders may be registered.
        standings_token: What the gateway shows to the API.
    """

    folder: Path
    database_url: str = field(repr=False)
    broker_url: str = field(repr=False)
    api_port: int
    gateway_port: int
    public_url: str
    gateway_url: str
    watch_ports: Mapping[str, int]
    models: Path
    standings_token: str = field(repr=False)

    @property
    def api_url(self) -> str:
        """Where the API listens."""
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def health(self) -> Mapping[str, str]:
        """Where a part says that it lives, once it serves."""
        gateway = f"http://127.0.0.1:{self.gateway_port}"
        return {"api": f"{self.api_url}/healthz", "gateway": f"{gateway}/healthz"}


def program(places: Places, part: str, own: Mapping[str, str]) -> Program:
    """Return a part's command.

    Args:
        places: The stage.
        part: ``api``, ``gateway``, a worker's or an agent's name.
        own: What its environment says besides.
    """
    if part == "api":
        arguments: tuple[str, ...] = ("-m", "backend.cli", "api")
    elif part == "gateway":
        arguments = ("-m", "backend.cli", "gateway", "--control-plane", places.api_url)
    elif part in places.watch_ports:
        arguments = ("-m", "worker", "--device", "cpu", "--threads", "1")
    else:
        arguments = ("-m", "client_agent", "run", "--threads", "1")
    return Program(part, arguments, environment(places, part, own), stop_seconds=_STOP_SECONDS)


def environment(places: Places, part: str, own: Mapping[str, str]) -> dict[str, str]:
    """Return a part's whole environment; see :func:`program`."""
    inherited = os.environ  # noqa: TID251 - what processes need of this machine
    basis = {name: value for name, value in inherited.items() if not name.startswith("TRUNKLINE_")}
    basis |= {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    if part == "api":
        return {**basis, **_api(places), **own}
    if part == "gateway":
        return {**basis, **_gateway(places), **own}
    settings = _worker(places, part) if part in places.watch_ports else _agent(places, part)
    return party_environment({**basis, **settings, **own})


def _api(places: Places) -> dict[str, str]:
    return {
        "TRUNKLINE_STATE_DIR": str(places.folder / "api"),
        "TRUNKLINE_DATABASE_URL": places.database_url,
        "TRUNKLINE_BROKER_URL": places.broker_url,
        "TRUNKLINE_PORT": str(places.api_port),
        "TRUNKLINE_PUBLIC_URL": places.public_url,
        "TRUNKLINE_GATEWAY_URL": places.gateway_url,
        "TRUNKLINE_MODEL_SOURCES": str(places.models),
        "TRUNKLINE_STANDINGS_TOKEN": places.standings_token,
    }


def _gateway(places: Places) -> dict[str, str]:
    return {
        "TRUNKLINE_GATEWAY_PORT": str(places.gateway_port),
        "TRUNKLINE_GATEWAY_STANDINGS_TOKEN": places.standings_token,
        "TRUNKLINE_GATEWAY_OWN_URL": places.gateway_url,
    }


def _worker(places: Places, worker: str) -> dict[str, str]:
    return {
        "TRUNKLINE_WORKER_STATE_DIR": str(places.folder / worker),
        "TRUNKLINE_WORKER_WATCH_PORT": str(places.watch_ports[worker]),
        "TRUNKLINE_WORKER_MEASURE": "false",
        "TRUNKLINE_BROKER_URL": places.broker_url,
    }


def _agent(places: Places, agent: str) -> dict[str, str]:
    return {"TRUNKLINE_AGENT_STATE_DIR": str(places.folder / agent)}
