"""What an operator sets about notices: ``TRUNKLINE_SMTP_...``, ``..._WEBHOOK_...``, ``..._NOTICE_...``."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, model_validator


class NoticeSettings(BaseModel):
    """A part of the control plane's settings.

    Attributes:
        smtp_host, smtp_port: The server that takes e-mail; unset: none is sent.
        smtp_security: STARTTLS, TLS from the beginning, or none: for a server on this machine alone.
        smtp_user, smtp_password_file: Who sends, where the server asks for that.
        smtp_from: The sender's address.
        webhook_private: Whether webhooks may go to private, loopback and link-local addresses.
        notice_seconds: Longest delivery of one notice.
        notice_approval_minutes: So long may a silo's word on a job be awaited before people are told.
    """

    smtp_host: str = ""
    smtp_port: int = Field(default=587, ge=1, le=65535)
    smtp_security: Literal["starttls", "tls", "none"] = "starttls"
    smtp_user: str = ""
    smtp_password_file: Path | None = None
    smtp_from: str = ""
    webhook_private: bool = False
    notice_seconds: float = Field(default=10.0, ge=0.5, le=120)
    notice_approval_minutes: int = Field(default=10, ge=0, le=60 * 24 * 7)

    @model_validator(mode="after")
    def _whole_smtp(self) -> "NoticeSettings":
        if self.smtp_host and "@" not in self.smtp_from:
            raise ValueError(
                "TRUNKLINE_SMTP_HOST is set; set TRUNKLINE_SMTP_FROM to the sender's address as well"
            )
        return self
