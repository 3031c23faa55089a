"""The whole of ``docker-compose.yml`` on this machine, in the order that its ``depends_on`` asks for."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from splitlearn.processes import free_port
from splitlearn.simulation.platform.control_plane import ControlPlane
from tests.contract.compose_file import ROOT, Service, read_env_file, read_services
from tests.contract.local_services import LocalService, Replacements

DOMAIN = "localhost"
HEALTHY_SECONDS = 90.0
CADDY = shutil.which("caddy")
REDIS = shutil.which("redis-server")


@dataclass
class ComposedPlatform:
    """Services by name, and what could not be started here.

    Attributes:
        folder: Everything's folder.
        values: What ``.env`` says.
        url: Where the control plane is for silos and people.
        database_url: What stands for the service postgres.
        own_replacements: Of one service, where in containers two have the same port.
        running: Services that were started.
        unchecked: What this machine cannot show, a sentence each.
        trust: Of an authority's certificate, in the environment of whoever speaks TLS with the proxy.
    """

    folder: Path
    values: dict[str, str]
    definitions: dict[str, Service]
    replacements: Replacements
    control_plane_programs: Path
    worker_programs: Path
    url: str
    database_url: str
    own_replacements: Mapping[str, Mapping[str, str]]
    trust: dict[str, str] = field(default_factory=dict)
    running: dict[str, LocalService] = field(default_factory=dict)
    unchecked: list[str] = field(default_factory=list)

    def service(self, name: str) -> LocalService:
        """Return a service, started or not."""
        if name not in self.running:
            programs: Path | str | None = {
                "redis": REDIS and Path(REDIS).parent,
                "proxy": CADDY and Path(CADDY).parent,
                "worker": self.worker_programs,
                "worker-gpu": self.worker_programs,
            }.get(name, self.control_plane_programs)
            table = {**self.replacements.table, **self.own_replacements.get(name, {})}
            self.running[name] = LocalService(
                self.definitions[name],
                self.values,
                Replacements(table),
                Path(programs or "/usr/bin"),
                self.folder,
            )
        return self.running[name]

    def start(self, name: str) -> LocalService:
        """Start a service and wait for its health check, where it has one."""
        service = self.service(name)
        service.start()
        service.wait_until_healthy(timeout_seconds=HEALTHY_SECONDS)
        return service

    def first_admin(self) -> ControlPlane:
        """Return a client, signed in by the password that the first start told."""
        found = re.search(r"user (\S+), password (\S+)", self.service("api").said())
        assert found is not None, "told at the first start"
        with pytest.MonkeyPatch.context() as environment:  # read when the client is made
            for name, value in self.trust.items():
                environment.setenv(name, value)
            client = ControlPlane(self.url)
        client.sign_in(found[1], found[2])
        return client


@dataclass
class Agent:
    """A silo's agent, as its owner runs it: beside the platform, in a folder of its own.

    Args:
        silo: Its name.
        folder: Where its folder and its log are.
        trust: What its environment says about certificates.
    """

    silo: str
    folder: Path
    trust: Mapping[str, str]
    _process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    def command(self, *words: str, standard_input: str = "") -> str:
        """Run a command of it and return what it printed."""
        done = subprocess.run(  # noqa: S603 - our own
            [sys.executable, "-m", "client_agent", *words],
            check=False,
            input=standard_input,
            capture_output=True,
            text=True,
            env=self._environment,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self) -> None:
        """Let it serve."""
        with (self.folder / f"{self.silo}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "client_agent", "run", "--threads", "1"],
                env=self._environment,
                stdout=log,
                stderr=log,
            )

    def stop(self) -> None:
        """End it."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(timeout=30)

    @property
    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.defpath,
            "HOME": str(self.folder),
            "PYTHONPATH": str(ROOT),
            "TRUNKLINE_AGENT_STATE_DIR": str(self.folder / self.silo),
            **self.trust,
        }


def make_env(folder: Path, **changes: str) -> dict[str, str]:
    """Return what ``docker/new-env.sh`` writes for a trial on this machine."""
    script = folder / "docker/new-env.sh"
    script.parent.mkdir()
    shutil.copy(ROOT / "docker/new-env.sh", script)
    subprocess.run(["sh", str(script), DOMAIN], check=True, stdout=subprocess.DEVNULL)  # noqa: S603, S607 - ours
    return {**read_env_file(folder / ".env"), "TRUNKLINE_TLS": "internal", **changes}


@contextmanager
def composed_platform(
    folder: Path, *, database_url: str, redis_url: str, models: Path, programs: Mapping[str, Path]
) -> Iterator[ComposedPlatform]:
    """Start redis, migrations, api, gateway and proxy, and stop whatever runs at the end.

    Args:
        folder: For everything that is written.
        database_url: An empty PostgreSQL database.
        redis_url: A Redis server, for where its own program is not on this machine.
        models: Folder of model folders.
        programs: Commands of the images ``control-plane`` and ``worker``.
    """
    values = make_env(
        folder,
        TRUNKLINE_GATEWAY_URL=f"wss://{DOMAIN}/relay,wss://{DOMAIN}/relay-2",
        TRUNKLINE_PARTY_SILENCE_SECONDS="5",  # a backup is older than that in life
    )
    definitions = read_services(values)
    ports = {
        name: str(free_port())
        for name in ("api", "gateway", "gateway-2", "worker", "redis", "https", "http", "health")
    }
    secret = values["TRUNKLINE_POSTGRES_PASSWORD"]
    proxied = f"localhost:{ports['https']}" if CADDY else f"127.0.0.1:{ports['api']}"
    broker = f"redis://:{values['TRUNKLINE_REDIS_PASSWORD']}@redis:6379/0"
    table = {
        f"postgresql://trunkline:{secret}@postgres:5432/trunkline": database_url,
        **(
            {"redis:6379": f"127.0.0.1:{ports['redis']}", "6379": ports["redis"]}
            if REDIS
            else {broker: redis_url}
        ),
        f"https://{DOMAIN}": f"https://{proxied}" if CADDY else f"http://{proxied}",
        **{
            f"wss://{DOMAIN}/{path}": f"wss://{proxied}/{path}"
            if CADDY
            else f"ws://127.0.0.1:{ports[name]}/relay"
            for path, name in (("relay", "gateway"), ("relay-2", "gateway-2"))
        },
        "http://control-plane:8470": f"http://127.0.0.1:{ports['api']}",
        "8470": ports["api"],
        "8471": ports["gateway"],
        "8472": ports["worker"],
        "0.0.0.0": "127.0.0.1",  # noqa: S104 - what is replaced
        "172.31.84.0/24": "127.0.0.1",
        "/var/lib/trunkline-worker": str(folder / "worker-state"),
        "/var/lib/trunkline": str(folder / "state"),
        "/models": str(models),
        "/etc/trunkline/redis.conf": str(ROOT / "docker/redis.conf"),
        "8082": ports["health"],
    }
    platform = ComposedPlatform(
        folder,
        values,
        definitions,
        Replacements(table),
        programs["control-plane"],
        programs["worker"],
        url=f"{'https' if CADDY else 'http'}://{proxied}",
        database_url=database_url,
        own_replacements={"gateway-2": {"8471": ports["gateway-2"]}},
    )
    platform.unchecked += [
        "the engine: images, volumes, networks, users, capabilities, restarts",
        "the service postgres: the database is the tests' own server",
        "the service worker-gpu: the same command as worker, on a device",
    ]
    described = platform.replacements.describe().replace(secret, "***")
    print("replaced on this machine:", described, sep="\n")  # noqa: T201 - asked for
    try:
        _start(platform, ports)
        yield platform
    finally:
        for service in reversed(platform.running.values()):
            service.stop()
        print("not checked here:", *platform.unchecked, sep="\n  ")  # noqa: T201 - asked for


def _start(platform: ComposedPlatform, ports: Mapping[str, str]) -> None:
    if REDIS:
        platform.start("redis")
    else:
        platform.unchecked.append("the service redis: there is no redis-server; the tests' own server serves")
    migrations = platform.service("migrations")
    assert migrations.run(timeout_seconds=120) == 0, migrations.said()
    platform.start("api")
    platform.start("gateway")
    platform.start("gateway-2")
    if CADDY:
        _start_proxy(platform, ports)
    else:
        platform.unchecked.append(
            "the service proxy and TLS: there is no caddy; all speak to api and gateway"
        )


def _start_proxy(platform: ComposedPlatform, ports: Mapping[str, str]) -> None:
    """Run the proxy's own configuration by the command of its Dockerfile."""
    state = platform.folder / "proxy-state"
    configuration = platform.folder / "Caddyfile"
    text = (ROOT / "docker/Caddyfile").read_text()
    for old, new in (
        ("http_port 80", f"http_port {ports['http']}"),
        ("https_port 443", f"https_port {ports['https']}"),
        ("127.0.0.1:8082", f"127.0.0.1:{ports['health']}"),
        ("control-plane 8470", f"127.0.0.1 {ports['api']}"),
        ("gateway:8471", f"127.0.0.1:{ports['gateway']}"),
        ("gateway-2:8471", f"127.0.0.1:{ports['gateway-2']}"),
    ):
        assert old in text
        text = text.replace(old, new)
    configuration.write_text(text)
    [command] = re.findall(r"^CMD (.*)$", (ROOT / "docker/proxy.Dockerfile").read_text(), flags=re.MULTILINE)
    words = [
        str(configuration) if word == "/etc/caddy/Caddyfile" else word
        for word in re.findall(r'"([^"]+)"', command)
    ]
    given = platform.definitions["proxy"]
    environment = {**given.fields["environment"], "XDG_DATA_HOME": str(state), "XDG_CONFIG_HOME": str(state)}
    platform.definitions["proxy"] = Service(
        "proxy", {**given.fields, "command": words, "environment": environment}
    )
    platform.start("proxy")
    platform.trust["SSL_CERT_FILE"] = str(state / "caddy/pki/authorities/local/root.crt")
    platform.values["SSL_CERT_FILE"] = platform.trust["SSL_CERT_FILE"]
