"""The control plane's settings, read from ``TRUNKLINE_...`` once, at the entry point."""

import os
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from backend.log import LogFormat
from backend.notices.settings import NoticeSettings
from backend.openid.settings import OpenIdSettings
from splitlearn.control_plane.broker import BrokerUrl
from splitlearn.identity import InvalidKeyError, PublicKey

MAX_URL: Final = 255
"""Characters of a gateway's address, which is a key in the database."""

MAX_TOKEN_DAYS: Final = 3650
"""Longest life of a user's API token, whatever is set."""

MAX_INVITATION_HOURS: Final = 24 * 90
"""Longest validity of an invitation, likewise."""


class Settings(NoticeSettings, OpenIdSettings, BaseSettings):
    """What an operator may set. Durations and sizes carry their unit in their name.

    What is set about an OpenID provider is told in ``backend.openid.settings``, about notices in
    ``backend.notices.settings``.

    Attributes:
        state_dir: Folder of the database, the embedded root and, later, artifacts.
        database_url: ``postgresql://...`` or ``sqlite:///...``; a SQLite file in the state folder if unset.
        host, port: Where the API listens.
        public_url: How agents and browsers reach this server; it is part of what they sign.
        root_file: Where the embedded federation root lies; ``root.key`` in the state folder if unset.
        root_public_key: 64 hexadecimal digits. When set, the root is offline: this server holds no key
            of it, and a person signs each certificate by ``trunkline root sign``.
        session_hours: Validity of a sign-in.
        api_token_days, max_api_token_days: Validity of a user's API token, by default and at most.
        invitation_hours, max_invitation_hours: Validity of an invitation, by default and at most.
        certificate_days: Validity of a certificate that the embedded root signs.
        login_nonce_seconds: Within this time a nonce must come back signed.
        party_session_seconds: Validity of an agent's or worker's token.
        party_silence_seconds: A process that was silent for longer no longer blocks another one.
        sign_in_window_seconds: For how long failed sign-ins are remembered.
        sign_in_failures_per_name: Failures for one name from one address before it has to wait.
        sign_in_failures_per_address: Failures from one address before it has to wait.
        password_memory_kib, password_passes, password_lanes: Cost of argon2id (RFC 9106, section 4).
        password_concurrency: Sign-ins hashed at the same time; more wait a moment or are refused.
        trusted_proxies: Addresses whose X-Forwarded-For is believed, separated by commas.
        max_body_bytes: Largest body of a request.
        log_format: Lines for people, or JSON for a collector.
        max_page: Rows of a list in one answer.
        gateway_url: Where silos and workers reach the gateway; several, separated by commas, share the work.
        gateway_silence_seconds: A gateway among several that named itself once and was silent for longer is
            passed over.
        standings_token: What the gateway shows to ask for standings; unset: nobody may ask.
        metrics_token: What Prometheus shows to read /metrics; unset: only this machine may.
        broker_url: ``redis://...``; unset: a folder in the state folder.
        lease_seconds: A worker that is silent for longer loses its lease.
        renew_seconds: How often a worker renews its lease; also how soon it hears of a cancellation.
        pickup_seconds: A dispatch that no worker took up for so long is made again.
        turn_seconds: Where others wait for its worker, a job gives way after the round in which this is over.
        generation_idle_seconds: A silo that generates and asks its worker nothing for so long gives it back.
        generation_yield_seconds: Likewise, where training waits for that worker.
        generation_seconds: For how long one session of generation may hold a worker.
        generation_silence_seconds: A session whose silo asked the control plane nothing for so long ends.
        poll_seconds: An agent asks for work no sooner than so long after it asked last; where there is no
            news, its question is held back instead.
        ticket_seconds: Validity of a ticket for the gateway.
        artifacts_url: Folder or fsspec URL of the artifact store; ``artifacts`` in the state folder if unset.
        artifact_quota_bytes: What one project may keep.
        max_blob_bytes: Largest blob.
        checkpoints_kept: Of each replica, in the store.
        result_days: How long results are kept.
        metric_whole_days: From so long after a job's end on, a tenth of its numbers by step is kept; 0: all.
        metric_days: So long after a job's end its numbers are removed; 0: never.
        log_days: So long after a job's end its parties' log lines are removed; 0: never.
        event_days: How long events are kept; 0: for ever.
        model_sources: Folders below which model folders may be registered, separated by the system's
            path separator; empty: none.
    """

    model_config = SettingsConfigDict(env_prefix="TRUNKLINE_", frozen=True, extra="ignore")

    state_dir: Path = Field(default_factory=lambda: Path.home() / ".trunkline")
    database_url: SecretStr | None = None
    host: str = "127.0.0.1"
    port: int = Field(default=8470, ge=0, le=65535)
    public_url: str = ""
    root_file: Path | None = None
    root_public_key: str | None = None
    session_hours: int = Field(default=12, ge=1, le=24 * 30)
    api_token_days: int = Field(default=90, ge=1, le=MAX_TOKEN_DAYS)
    max_api_token_days: int = Field(default=365, ge=1, le=MAX_TOKEN_DAYS)
    invitation_hours: int = Field(default=72, ge=1, le=MAX_INVITATION_HOURS)
    max_invitation_hours: int = Field(default=24 * 30, ge=1, le=MAX_INVITATION_HOURS)
    certificate_days: int = Field(default=365, ge=1, le=3650)
    login_nonce_seconds: int = Field(default=60, ge=5, le=600)
    party_session_seconds: int = Field(default=3600, ge=60, le=86400)
    party_silence_seconds: int = Field(default=90, ge=5, le=3600)
    sign_in_window_seconds: int = Field(default=900, ge=10, le=86400)
    sign_in_failures_per_name: int = Field(default=5, ge=1, le=100)
    sign_in_failures_per_address: int = Field(default=50, ge=1, le=10_000)
    password_memory_kib: int = Field(default=65536, ge=64, le=1 << 22)
    password_passes: int = Field(default=3, ge=1, le=100)
    password_lanes: int = Field(default=4, ge=1, le=64)
    password_concurrency: int = Field(default=4, ge=1, le=64)
    trusted_proxies: str = ""
    max_body_bytes: int = Field(default=2 << 20, ge=1 << 12, le=1 << 30)
    log_format: LogFormat = "console"
    max_page: int = Field(default=200, ge=1, le=10_000)
    gateway_url: str = "ws://127.0.0.1:8471/relay"
    gateway_silence_seconds: float = Field(default=6.0, ge=1, le=600)
    standings_token: SecretStr | None = None
    metrics_token: SecretStr | None = None
    broker_url: BrokerUrl | None = None
    lease_seconds: float = Field(default=15.0, ge=1, le=600)
    renew_seconds: float = Field(default=2.0, ge=0.1, le=60)
    pickup_seconds: float = Field(default=30.0, ge=1, le=3600)
    turn_seconds: float = Field(default=30.0, ge=0, le=86_400)
    generation_idle_seconds: float = Field(default=60.0, ge=1, le=86_400)
    generation_yield_seconds: float = Field(default=2.0, ge=0, le=86_400)
    generation_seconds: float = Field(default=900.0, ge=1, le=604_800)
    generation_silence_seconds: float = Field(default=60.0, ge=5, le=86_400)
    poll_seconds: float = Field(default=1.0, ge=0.05, le=60)
    ticket_seconds: int = Field(default=60, ge=5, le=600)
    artifacts_url: str | None = None
    artifact_quota_bytes: int = Field(default=1 << 42, ge=0)
    max_blob_bytes: int = Field(default=1 << 38, ge=1)
    checkpoints_kept: int = Field(default=2, ge=2, le=1000)
    result_days: int = Field(default=90, ge=1, le=3650)
    metric_whole_days: int = Field(default=90, ge=0, le=36_500)
    metric_days: int = Field(default=730, ge=0, le=36_500)
    log_days: int = Field(default=90, ge=0, le=36_500)
    event_days: int = Field(default=365, ge=0, le=36_500)
    model_sources: str = ""

    @field_validator("public_url")
    @classmethod
    def _is_address(cls, value: str) -> str:
        value = value.rstrip("/")
        if value and (urlsplit(value).scheme not in {"http", "https"} or not urlsplit(value).hostname):
            raise ValueError(f"{value!r} is not http(s)://host[:port][/path]")
        return value

    @field_validator("gateway_url")
    @classmethod
    def _are_gateways(cls, value: str) -> str:
        urls = [url.strip() for url in value.split(",")]
        for url in urls:
            if urlsplit(url).scheme not in {"ws", "wss"} or not urlsplit(url).hostname or len(url) > MAX_URL:
                raise ValueError(f"{url!r} is not ws(s)://host[:port]/relay of at most {MAX_URL} characters")
        if len(set(urls)) < len(urls):
            raise ValueError(f"{value!r} names a gateway twice; name each once")
        return ",".join(urls)

    @field_validator("root_public_key")
    @classmethod
    def _is_key(cls, value: str | None) -> str | None:
        try:
            if value is not None:
                PublicKey(bytes.fromhex(value))
        except InvalidKeyError as error:
            raise ValueError(error.message) from error
        return value

    @model_validator(mode="after")
    def _one_root(self) -> Self:
        if self.root_public_key is not None and self.root_file is not None:
            raise ValueError("set root_file (embedded) or root_public_key (offline), not both")
        return self

    @property
    def audience(self) -> str:
        """This server's address as in invitations and signatures, without a slash at its end."""
        return self.public_url or f"http://{self.host}:{self.port}"

    @property
    def gateway_urls(self) -> tuple[str, ...]:
        """The gateways' addresses."""
        return tuple(self.gateway_url.split(","))

    @property
    def resolved_root_file(self) -> Path:
        """Where the embedded root lies."""
        return self.root_file or self.state_dir / "root.key"

    @property
    def resolved_artifacts_url(self) -> str:
        """Where the artifact store is."""
        return self.artifacts_url or str((self.state_dir / "artifacts").absolute())

    @property
    def broker_dir(self) -> Path:
        """Folder of the embedded broker."""
        return self.state_dir / "broker"

    @property
    def model_folders(self) -> tuple[Path, ...]:
        """Folders below which model folders may be registered."""
        return tuple(Path(text) for text in self.model_sources.split(os.pathsep) if text)

    @property
    def resolved_database_url(self) -> str:
        """The database's URL, with its password: never to be shown."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{(self.state_dir / 'trunkline.db').absolute()}"
