"""Sending a notice by e-mail, through the operator's server."""

import smtplib
import ssl
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from typing import Final

from backend.notices.errors import DeliveryError
from backend.notices.settings import NoticeSettings

_MAX_PASSWORD_BYTES: Final = 4096


def send(
    settings: NoticeSettings, target: str, *, notice_id: str, subject: str, text: str, now: datetime
) -> None:
    """Hand an e-mail to the operator's server.

    Raises:
        DeliveryError: It was not taken, or no server is set.
    """
    if not settings.smtp_host:
        raise DeliveryError("this server sends no e-mail: TRUNKLINE_SMTP_HOST is not set")
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = settings.smtp_from, target, subject
    message["Date"] = format_datetime(now)
    message["Message-ID"] = f"<{notice_id}@{settings.smtp_from.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no absence note is to answer it
    message.set_content(text)
    try:
        with _connect(settings) as server:
            if settings.smtp_user:
                server.login(settings.smtp_user, _password(settings.smtp_password_file))
            server.send_message(message)
    except smtplib.SMTPResponseException as error:
        raise DeliveryError(f"the mail server answered {error.smtp_code}") from error
    except (smtplib.SMTPException, OSError, UnicodeError) as error:
        raise DeliveryError(f"the mail server did not take it: {type(error).__name__}") from error


def _connect(settings: NoticeSettings) -> smtplib.SMTP:
    where = settings.smtp_host, settings.smtp_port
    if settings.smtp_security == "tls":
        context = ssl.create_default_context()
        return smtplib.SMTP_SSL(*where, timeout=settings.notice_seconds, context=context)
    server = smtplib.SMTP(*where, timeout=settings.notice_seconds)
    if settings.smtp_security == "starttls":
        try:
            server.starttls(context=ssl.create_default_context())
        except BaseException:
            server.close()
            raise
    return server


def _password(path: Path | None) -> str:
    if path is None:
        return ""
    with path.open("rb") as file:
        return file.read(_MAX_PASSWORD_BYTES).decode().strip()
