"""Which processes ``trunkline up`` starts, and with what environment. Decides; starts nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from splitlearn.party_environment import party_environment
from splitlearn.processes import Program

_API_STOP_SECONDS = 10.0
_GATEWAY_STOP_SECONDS = 5.0
_WORKER_STOP_SECONDS = 20.0
RELAY_PATH = "/relay"


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where everything of one embedded platform is.

    Attributes:
        state_dir: Holds the database, the root's key, artifacts, the broker's folder, workers and logs.
        host: Address that API and gateway listen on.
        port, gateway_port: Their ports.
        standings_token: What the gateway shows the control plane; drawn anew at each start.
    """

    state_dir: Path
    host: str
    port: int
    gateway_port: int
    standings_token: str = field(repr=False)

    @property
    def url(self) -> str:
        """The control plane's address on this machine."""
        return f"http://{_in_url(self.host)}:{self.port}"

    @property
    def gateway_url(self) -> str:
        """The gateway's address for silos and workers."""
        return f"ws://{_in_url(self.host)}:{self.gateway_port}{RELAY_PATH}"

    @property
    def gateway_health(self) -> str:
        """Where the gateway says that it lives."""
        return f"http://{_in_url(self.host)}:{self.gateway_port}/healthz"

    @property
    def logs(self) -> Path:
        """Folder of the processes' logs."""
        return self.state_dir / "logs"

    @property
    def description(self) -> Path:
        """What runs here, for programs: there while everything is up, readable by its owner."""
        return self.state_dir / "up.json"

    def worker_dir(self, name: str) -> Path:
        """Return a worker's state folder."""
        return self.state_dir / "workers" / name


def control_plane_environment(places: Places, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of everything that reads the control plane's settings."""
    return {
        "TRUNKLINE_GATEWAY_URL": places.gateway_url,
        **inherited,
        "TRUNKLINE_STATE_DIR": str(places.state_dir),
        "TRUNKLINE_HOST": places.host,
        "TRUNKLINE_PORT": str(places.port),
        "TRUNKLINE_STANDINGS_TOKEN": places.standings_token,
    }


def api(places: Places, inherited: Mapping[str, str]) -> Program:
    """Return the control plane's API."""
    return Program(
        "api",
        ("-m", "backend.cli", "api"),
        control_plane_environment(places, inherited),
        stop_seconds=_API_STOP_SECONDS,
    )


def gateway(places: Places, inherited: Mapping[str, str], *, ticket_public_key: str) -> Program:
    """Return the gateway."""
    own = {
        "TRUNKLINE_GATEWAY_HOST": places.host,
        "TRUNKLINE_GATEWAY_PORT": str(places.gateway_port),
        "TRUNKLINE_GATEWAY_TICKET_PUBLIC_KEY": ticket_public_key,
        "TRUNKLINE_GATEWAY_STANDINGS_URL": f"{places.url}/api/v1/standings",
        "TRUNKLINE_GATEWAY_STANDINGS_TOKEN": places.standings_token,
        "TRUNKLINE_GATEWAY_OWN_URL": places.gateway_url,
    }
    return Program(
        "gateway", ("-m", "backend.gateway"), {**inherited, **own}, stop_seconds=_GATEWAY_STOP_SECONDS
    )


def worker(
    places: Places,
    inherited: Mapping[str, str],
    *,
    name: str,
    invitation: str | None,
    arguments: tuple[str, ...],
) -> Program:
    """Return a worker. A secret travels in the environment: command lines are for all to read."""
    own = {
        "TRUNKLINE_WORKER_STATE_DIR": str(places.worker_dir(name)),
        "TRUNKLINE_BROKER_DIR": str(places.state_dir / "broker"),
    }
    if invitation is not None:
        own["TRUNKLINE_WORKER_INVITATION"] = invitation
    return Program(
        name,
        ("-m", "worker", *arguments),
        party_environment({**inherited, **own}),
        stop_seconds=_WORKER_STOP_SECONDS,
    )


def _in_url(host: str) -> str:
    """Return how this machine reaches what listens on ``host``, which may be all of its addresses."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - not listened on here
    return f"[{reachable}]" if ":" in reachable else reachable
