"""The worker's settings, read from the environment once, at the entry point."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from splitlearn.control_plane.broker import BrokerUrl


class Settings(BaseSettings):
    """What an operator may set.

    Attributes:
        state_dir: Key, certificate, and what is kept between two processes; one folder per worker.
        invitation: Text of an invitation; needed at the first start alone.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``; several with commas: a trunk that is too
            large for one is laid over them.
        threads: Of torch; None for torch's own choice.
        drain_seconds: After SIGTERM the round may go on for so long; giving the lease back takes below 1 s.
        log_format: Lines for people, or JSON for a collector.
        broker_url: ``redis://...``; None for the folder.
        broker_dir: Folder of the embedded broker: the control plane's ``<state_dir>/broker``.
        watch_port: Where ``/healthz``, ``/readyz`` and ``/metrics`` are answered; None: nowhere; 0 takes a
            free port, which the log names.
        watch_host: On this address.
        metrics_token: What Prometheus shows to read ``/metrics``; None: only this machine may.
        cache_bytes: Keys and values that are kept at most for a silo that generates.
        cache_rows: Prompts that it may have answered at once.
        cache_tokens: Of one prompt and its answer.
        measure: Whether the trunk's speed is measured at the start.
    """

    model_config = SettingsConfigDict(
        env_prefix="TRUNKLINE_WORKER_", frozen=True, extra="ignore", populate_by_name=True
    )

    state_dir: Path = Field(default_factory=lambda: Path.home() / ".trunkline-worker")
    invitation: SecretStr | None = None
    device: str = Field(default="auto", max_length=128)
    threads: int | None = Field(default=None, ge=1, le=1024)
    drain_seconds: float = Field(default=4.0, ge=0, le=3600)
    log_format: Literal["console", "json"] = "console"
    broker_url: BrokerUrl | None = Field(default=None, validation_alias="TRUNKLINE_BROKER_URL")
    broker_dir: Path = Field(
        default_factory=lambda: Path.home() / ".trunkline" / "broker",
        validation_alias="TRUNKLINE_BROKER_DIR",
    )
    watch_port: int | None = Field(default=None, ge=0, le=65535)
    watch_host: str = "127.0.0.1"
    metrics_token: SecretStr | None = None
    cache_bytes: int = Field(default=1 << 30, ge=1)
    cache_rows: int = Field(default=64, ge=1)
    cache_tokens: int = Field(default=8192, ge=1)
    measure: bool = True
