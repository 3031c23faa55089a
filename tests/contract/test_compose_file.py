"""``docker-compose.yml`` and its Dockerfiles beside what the code knows; nothing is started."""

import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from pydantic_settings import BaseSettings

from backend.cli.main import app as command_line
from backend.gateway.settings import GatewaySettings
from backend.notices.settings import NoticeSettings
from backend.openid.settings import OpenIdSettings
from backend.settings import Settings
from tests.contract.compose_file import (
    COMPOSE_FILE,
    ROOT,
    MissingVariableError,
    Service,
    interpolate,
    read_compose,
    read_env_file,
    read_services,
)
from worker.settings import Settings as WorkerSettings

DOMAIN = "trunkline.example.org"
REQUIRED = {
    "TRUNKLINE_DOMAIN",
    "TRUNKLINE_METRICS_TOKEN",
    "TRUNKLINE_MODELS_DIR",
    "TRUNKLINE_POSTGRES_PASSWORD",
    "TRUNKLINE_REDIS_PASSWORD",
    "TRUNKLINE_STANDINGS_TOKEN",
    "TRUNKLINE_TLS",
}
SECRETS = {name for name in REQUIRED if name.endswith(("PASSWORD", "TOKEN"))}
OF_LIBRARIES = {"HF_HOME", "HF_TOKEN", "SSL_CERT_FILE"}
SETTINGS: dict[str, type[BaseSettings]] = {
    "migrations": Settings,
    "api": Settings,
    "gateway": GatewaySettings,
    "gateway-2": GatewaySettings,
    "worker": WorkerSettings,
    "worker-gpu": WorkerSettings,
}
SERVICES = [*SETTINGS, "postgres", "redis", "proxy"]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))


@pytest.fixture(scope="module")
def env_script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the script in a folder of its own: it writes beside itself."""
    script = tmp_path_factory.mktemp("host") / "docker/new-env.sh"
    script.parent.mkdir()
    script.write_bytes((ROOT / "docker/new-env.sh").read_bytes())
    return script


@pytest.fixture(scope="module")
def env_file(env_script: Path) -> Path:
    done = run_script(env_script, DOMAIN)
    assert done.returncode == 0, done.stderr
    return env_script.parents[1] / ".env"


@pytest.fixture(scope="module")
def values(env_file: Path) -> dict[str, str]:
    return read_env_file(env_file)


@pytest.fixture(scope="module")
def compose(values: dict[str, str]) -> dict[str, Any]:
    return read_compose(values)


@pytest.fixture(scope="module")
def services(values: dict[str, str]) -> dict[str, Service]:
    return read_services(values)


def run_script(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", str(script), *arguments], check=False, capture_output=True, text=True)  # noqa: S603, S607 - ours


class TestNewEnv:
    def test_is_for_its_owner_alone(self, env_file: Path) -> None:
        assert stat.S_IMODE(env_file.stat().st_mode) == 0o600

    def test_has_every_variable_that_the_file_requires(self, values: dict[str, str]) -> None:
        assert set(values) >= REQUIRED
        assert values["TRUNKLINE_DOMAIN"] == DOMAIN

    def test_draws_secrets_of_256_bits_each_another(self, values: dict[str, str]) -> None:
        drawn = [values[name] for name in SECRETS]
        assert all(re.fullmatch("[0-9a-f]{64}", secret) for secret in drawn)
        assert len(set(drawn)) == len(SECRETS)

    def test_never_writes_over_one(self, env_script: Path, env_file: Path) -> None:
        before = env_file.read_bytes()
        done = run_script(env_script, DOMAIN)
        assert (done.returncode, env_file.read_bytes()) == (5, before)
        assert "in use" in done.stderr

    @pytest.mark.parametrize(
        "domain", ["", "Example.org", "https://example.org", "example.org:443", "a b", "x\ny"]
    )
    def test_refuses_what_is_no_domain(self, env_script: Path, domain: str) -> None:
        done = run_script(env_script, domain)
        assert (done.returncode, "no domain" in done.stderr) == (2, True)


class TestVariables:
    @pytest.mark.parametrize("name", sorted(REQUIRED))
    def test_a_missing_one_is_refused_with_the_command_that_makes_it(
        self, values: dict[str, str], name: str
    ) -> None:
        left = {key: value for key, value in values.items() if key != name}
        with pytest.raises(MissingVariableError, match=rf"{name} .*docker/new-env\.sh DOMAIN"):
            read_compose(left)

    def test_no_secret_is_in_the_file(self) -> None:
        text = re.sub(r"\$\{\w+:\?[^}]*\}", "${}", COMPOSE_FILE.read_text())
        named = re.findall(
            r"^ +\w*(?:PASSWORD|TOKEN|INVITATION|AUTH|SECRET)\w*:(.*?)(?:#.*)?$", text, re.MULTILINE
        )
        assert len(named) >= 5
        assert {value.strip() for value in named} == {"", "${}"}
        credentials = re.findall(r"://([^@/\s]*)@", text)
        assert len(credentials) == 3
        assert {value.partition(":")[2] for value in credentials} == {"${}"}

    def test_env_file_is_left_out_of_git_and_images(self) -> None:
        assert ".env" in (ROOT / ".gitignore").read_text().splitlines()
        assert ".env" in (ROOT / ".dockerignore").read_text().splitlines()

    def test_nested_defaults_are_read_as_compose_reads_them(self) -> None:
        assert interpolate("${A:-x-${B}-${C:-y}}$$B", {"B": "b"}) == "x-b-y$$B"


class TestSettings:
    @pytest.mark.parametrize("name", sorted(SETTINGS))
    def test_every_variable_is_one_that_the_program_reads(
        self, services: dict[str, Service], name: str
    ) -> None:
        given = services[name].fields["environment"].keys() - OF_LIBRARIES
        assert given <= names_of(SETTINGS[name])

    @pytest.mark.parametrize("name", sorted(SETTINGS))
    def test_every_value_is_accepted(
        self, services: dict[str, Service], values: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for variable, value in services[name].environment(values).items():
            monkeypatch.setenv(variable, value)
        if SETTINGS[name] is GatewaySettings:  # asked at the start by --control-plane
            monkeypatch.setenv("TRUNKLINE_GATEWAY_TICKET_PUBLIC_KEY", "aa" * 32)
        SETTINGS[name]()

    def test_what_the_pages_tell_an_operator_to_set_reaches_the_api(
        self, services: dict[str, Service]
    ) -> None:
        given = services["api"].fields["environment"].keys()
        told = set(re.findall(r"TRUNKLINE_[A-Z_]+[A-Z]", (ROOT / "docs/operations.md").read_text()))
        assert told & names_of(Settings) <= given
        groups = (OpenIdSettings, NoticeSettings)
        assert {f"TRUNKLINE_{name.upper()}" for group in groups for name in group.model_fields} <= given

    def test_a_wrong_value_would_be_noticed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TRUNKLINE_PUBLIC_URL", "trunkline.example.org")
        with pytest.raises(ValidationError):
            Settings()

    def test_both_ends_of_a_shared_setting_agree(
        self, services: dict[str, Service], values: dict[str, str]
    ) -> None:
        api, gateway, worker = (services[name].environment(values) for name in ("api", "gateway", "worker"))
        assert api["TRUNKLINE_STANDINGS_TOKEN"] == gateway["TRUNKLINE_GATEWAY_STANDINGS_TOKEN"]
        assert api["TRUNKLINE_GATEWAY_URL"] == gateway["TRUNKLINE_GATEWAY_OWN_URL"]
        assert api["TRUNKLINE_BROKER_URL"] == worker["TRUNKLINE_BROKER_URL"]
        assert values["TRUNKLINE_REDIS_PASSWORD"] in api["TRUNKLINE_BROKER_URL"]
        assert services["redis"].environment(values)["REDISCLI_AUTH"] == values["TRUNKLINE_REDIS_PASSWORD"]
        assert values["TRUNKLINE_POSTGRES_PASSWORD"] in api["TRUNKLINE_DATABASE_URL"]

    def test_each_gateway_has_an_address_that_the_proxy_serves(
        self, services: dict[str, Service], values: dict[str, str]
    ) -> None:
        paths = {
            name: services[name]
            .environment(values)["TRUNKLINE_GATEWAY_OWN_URL"]
            .removeprefix(f"wss://{DOMAIN}")
            for name in ("gateway", "gateway-2")
        }
        proxied = (ROOT / "docker/Caddyfile").read_text()
        for name, path in paths.items():
            assert re.search(rf"handle {path} {{[^}}]*reverse_proxy {name}:8471", proxied)
        given = read_services(
            {**values, "TRUNKLINE_GATEWAY_URL": ",".join(f"wss://{DOMAIN}{p}" for p in paths.values())}
        )
        assert given["api"].environment(values)["TRUNKLINE_GATEWAY_URL"].count(",") == 1

    def test_programs_listen_where_they_are_asked(
        self, services: dict[str, Service], values: dict[str, str]
    ) -> None:
        for name, variable in {
            "api": "TRUNKLINE_PORT",
            "gateway": "TRUNKLINE_GATEWAY_PORT",
            "worker": "TRUNKLINE_WORKER_WATCH_PORT",
        }.items():
            port = services[name].environment(values)[variable]
            assert f"http://127.0.0.1:{port}/readyz" in services[name].health_check[-1]
        proxied = (ROOT / "docker/Caddyfile").read_text()
        assert re.findall(r"reverse_proxy (\S+:\d+)", proxied) == ["gateway:8471", "gateway-2:8471"]
        assert "dynamic a control-plane 8470" in proxied
        assert services["api"].fields["networks"]["front"]["aliases"] == ["control-plane"]

    def test_the_proxy_has_the_same_ports_inside_where_a_worker_finds_it_by_its_name(
        self, services: dict[str, Service]
    ) -> None:
        proxy, proxied = services["proxy"].fields, (ROOT / "docker/Caddyfile").read_text()
        listened = set(re.findall(r"^\t(?:https?)_port (\d+)$", proxied, flags=re.MULTILINE))
        assert proxy["networks"]["outside"]["aliases"] == [DOMAIN]
        assert (
            {port for mapping in proxy["ports"] for port in mapping.split(":")} == listened == {"80", "443"}
        )

    def test_commands_are_those_of_the_command_line(self, services: dict[str, Service]) -> None:
        known = {info.name for info in command_line.registered_commands} | {
            group.name or (group.typer_instance and group.typer_instance.info.name)
            for group in command_line.registered_groups
        }
        for name in ("migrations", "api", "gateway", "gateway-2"):
            assert services[name].command[0] == "trunkline"
            assert services[name].command[1] in known


class TestHardening:
    def test_every_service_is_known_here(self, services: dict[str, Service]) -> None:
        assert sorted(services) == sorted(SERVICES)

    @pytest.mark.parametrize("name", SERVICES)
    def test_runs_without_root_writes_nowhere_and_gains_nothing(
        self, services: dict[str, Service], name: str
    ) -> None:
        fields = services[name].fields
        assert fields["user"] not in {"root", "0", "0:0"}
        assert fields["read_only"] is True
        assert fields["cap_drop"] == ["ALL"]
        assert fields["security_opt"] == ["no-new-privileges:true"]
        assert not fields.keys() & {"privileged", "cap_add", "network_mode", "pid", "devices"}

    @pytest.mark.parametrize("name", SERVICES)
    def test_its_log_is_bounded_and_it_comes_back(self, services: dict[str, Service], name: str) -> None:
        fields = services[name].fields
        assert fields["logging"]["options"].keys() == {"max-size", "max-file"}
        assert fields["restart"] == ("on-failure:5" if name == "migrations" else "unless-stopped")

    @pytest.mark.parametrize("name", SERVICES)
    def test_its_image_is_pinned(self, services: dict[str, Service], name: str) -> None:
        assert re.search(r":\d+\.\d+", services[name].fields["image"])

    def test_only_the_proxy_is_published(self, services: dict[str, Service]) -> None:
        assert [name for name, service in services.items() if "ports" in service.fields] == ["proxy"]

    def test_database_and_broker_are_on_inner_networks_alone(
        self, compose: dict[str, Any], services: dict[str, Service]
    ) -> None:
        inner = {name for name, network in compose["networks"].items() if network and network.get("internal")}
        for name in ("postgres", "redis", "migrations", "gateway", "gateway-2"):
            assert set(services[name].fields["networks"]) <= inner

    def test_a_worker_reaches_neither_database_nor_the_network_whose_addresses_are_believed(
        self, compose: dict[str, Any], services: dict[str, Service], values: dict[str, str]
    ) -> None:
        believed = services["api"].environment(values)["TRUNKLINE_TRUSTED_PROXIES"]
        assert compose["networks"]["front"]["ipam"]["config"] == [{"subnet": believed}]
        for name in ("worker", "worker-gpu"):
            assert not set(services[name].fields["networks"]) & {"front", "data"}

    def test_the_gpu_is_reserved_by_a_profile_alone(self, services: dict[str, Service]) -> None:
        gpu = services["worker-gpu"].fields
        [device] = gpu["deploy"]["resources"]["reservations"]["devices"]
        assert (gpu["profiles"], device["capabilities"]) == (["gpu"], ["gpu"])
        assert "deploy" not in services["worker"].fields


class TestMounts:
    def test_every_file_of_ours_exists(self, services: dict[str, Service]) -> None:
        sources = {
            source for service in services.values() for source, _, is_bind in service.mounts if is_bind
        }
        ours = {source for source in sources if source.startswith("./")}
        assert ours == {"./docker/redis.conf", "./docker/tls"}
        assert all((ROOT / source).exists() for source in ours)

    def test_every_volume_is_named_and_used(
        self, compose: dict[str, Any], services: dict[str, Service]
    ) -> None:
        used = {
            source for service in services.values() for source, _, is_bind in service.mounts if not is_bind
        }
        assert used == set(compose["volumes"])

    def test_what_the_host_lends_is_read_only(self, services: dict[str, Service]) -> None:
        for service in services.values():
            for mount in service.fields.get("volumes", []):
                assert isinstance(mount, str) or mount["read_only"] is True

    @pytest.mark.parametrize("name", ["api", "migrations", "worker", "worker-gpu"])
    def test_a_state_folder_is_a_volume_that_the_image_gives_to_its_user(
        self, services: dict[str, Service], values: dict[str, str], name: str
    ) -> None:
        environment = services[name].environment(values)
        folder = environment.get("TRUNKLINE_STATE_DIR") or environment["TRUNKLINE_WORKER_STATE_DIR"]
        assert folder in {target for _, target, _ in services[name].mounts}
        built = (ROOT / services[name].fields["build"]["dockerfile"]).read_text()
        assert re.search(rf"install --directory --owner=10001 .*{folder}\n", built)


class TestHealth:
    @pytest.mark.parametrize("name", sorted(set(SERVICES) - {"migrations"}))
    def test_is_asked_of_every_service_that_stays(self, services: dict[str, Service], name: str) -> None:
        check = services[name].fields["healthcheck"]
        assert services[name].health_check
        assert {"interval", "timeout", "retries", "start_period", "start_interval"} <= check.keys()

    def test_whoever_is_waited_for_has_one_or_ends(self, services: dict[str, Service]) -> None:
        for service in services.values():
            for name, wanted in service.fields.get("depends_on", {}).items():
                kind = "service_completed_successfully" if name == "migrations" else "service_healthy"
                assert wanted == {"condition": kind}, (service.name, name)


class TestDockerfiles:
    def test_each_is_built_by_a_service(self, services: dict[str, Service]) -> None:
        named = {
            service.fields["build"]["dockerfile"]
            for service in services.values()
            if "build" in service.fields
        }
        assert named == {f"docker/{path.name}" for path in DOCKERFILES}

    @pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
    def test_bases_are_pinned_and_the_last_user_is_not_root(self, path: Path) -> None:
        lines = path.read_text().splitlines()
        bases = [line.split()[1] for line in lines if line.startswith("FROM ")]
        assert all(re.search(r":\d+\.\d+\.\d+", base) for base in bases)
        assert [line for line in lines if line.startswith("USER ")][-1] == "USER 10001:10001"

    @pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
    def test_copies_what_is_there_and_not_ignored(self, path: Path) -> None:
        ignored = {line.rstrip("/") for line in (ROOT / ".dockerignore").read_text().splitlines()}
        copied = re.findall(r"^COPY (?!--from)(.+) \S+$", path.read_text(), flags=re.MULTILINE)
        for source in " ".join(copied).split():
            assert (ROOT / source).exists(), source
            assert source not in ignored


def names_of(settings: type[BaseSettings]) -> set[str]:
    prefix = settings.model_config["env_prefix"]
    return {
        str(field.validation_alias or f"{prefix}{name}").upper()
        for name, field in settings.model_fields.items()
    }


def test_the_file_is_yaml_that_anybody_reads() -> None:
    assert yaml.safe_load(COMPOSE_FILE.read_text())["name"] == "trunkline"
