"""The gateway's settings, read from ``TRUNKLINE_GATEWAY_...`` once, at the entry point."""

from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from splitlearn.identity import InvalidKeyError, PublicKey
from splitlearn.wire import Limits


class GatewaySettings(BaseSettings):
    """What an operator may set. Durations and sizes carry their unit in their name.

    Attributes:
        host, port: Where it listens; port 0 takes a free one, which the log names.
        tls_certificate_file, tls_key_file: PEM files of its own TLS; neither, behind a proxy that ends TLS.
        ticket_public_key: 64 hexadecimal digits: the control plane's key for tickets.
        standings_url: Where the control plane answers which epochs are current; empty: known from tickets
            alone, so that a superseded connection lives until its successor comes.
        own_url: Its address as in the control plane's TRUNKLINE_GATEWAY_URL. By it a gateway among several is
            known to be there; not needed for a single one.
        standings_token: Sent there as a bearer token.
        metrics_token: What Prometheus shows to read /metrics; None: only this machine may.
        standings_seconds: Time between two questions. With ``close_seconds`` it bounds how long a
            superseded connection lives.
        max_frame_bytes: Largest frame relayed.
        max_connections: Connections served at the same time.
        max_connections_per_party: Of one silo or worker.
        max_handshakes: Connections beyond these that may still be in their opening handshake.
        max_header_bytes: Of the opening request, all headers together.
        handshake_seconds: Longest time of the opening handshake.
        pairing_seconds: Longest wait for the other side.
        max_idle_seconds: A pair that relays nothing for so long is closed.
        ping_seconds: Time between two signs of life.
        silence_seconds: A connection without any progress for so long is dropped.
        close_seconds: Longest wait for the other end to take the closing word.
    """

    model_config = SettingsConfigDict(env_prefix="TRUNKLINE_GATEWAY_", frozen=True, extra="ignore")

    host: str = "127.0.0.1"
    port: int = Field(default=8471, ge=0, le=65535)
    tls_certificate_file: Path | None = None
    tls_key_file: Path | None = None
    ticket_public_key: str
    standings_url: str = ""
    own_url: str = Field(default="", max_length=255)
    standings_token: SecretStr | None = None
    metrics_token: SecretStr | None = None
    standings_seconds: float = Field(default=2.0, ge=0.05, le=2.0)
    max_frame_bytes: int = Field(default=Limits().max_frame_bytes, ge=1 << 12, le=1 << 28)
    max_connections: int = Field(default=2048, ge=2, le=1 << 16)
    max_connections_per_party: int = Field(default=256, ge=1, le=1 << 16)
    max_handshakes: int = Field(default=256, ge=1, le=1 << 16)
    max_header_bytes: int = Field(default=8192, ge=1024, le=1 << 16)
    handshake_seconds: float = Field(default=10.0, ge=0.1, le=60)
    pairing_seconds: float = Field(default=120.0, ge=0.1, le=3600)
    max_idle_seconds: float = Field(default=3600.0, ge=1, le=86400)
    ping_seconds: float = Field(default=15.0, ge=0.1, le=300)
    silence_seconds: float = Field(default=60.0, ge=0.5, le=3600)
    close_seconds: float = Field(default=1.5, ge=0.1, le=1.5)

    @field_validator("ticket_public_key")
    @classmethod
    def _is_key(cls, value: str) -> str:
        try:
            PublicKey(bytes.fromhex(value))
        except InvalidKeyError as error:
            raise ValueError(error.message) from error
        return value

    @field_validator("standings_url")
    @classmethod
    def _is_address(cls, value: str) -> str:
        if value and (urlsplit(value).scheme not in {"http", "https"} or not urlsplit(value).hostname):
            raise ValueError(f"{value!r} is not http(s)://host[:port]/path")
        return value

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            raise ValueError("set tls_certificate_file and tls_key_file both, or neither")
        return self

    @property
    def public_key(self) -> PublicKey:
        """The key that verifies tickets."""
        return PublicKey(bytes.fromhex(self.ticket_public_key))
