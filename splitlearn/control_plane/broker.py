"""Where control plane and workers leave tasks for each other: Celery's settings, the same at both ends.

The message broker carries hints alone: a lost task is sent again, and one that comes twice finds that its
lease is taken. Celery itself is not imported here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, SecretStr

from splitlearn.control_plane.errors import SettingError
from splitlearn.errors import StorageError

TASK_NAME = "trunkline.host_trunk"
"""Host a trunk; its keyword arguments are the fields of ``DispatchBody``."""

AVERAGE_TASK = "trunkline.average_replicas"
"""Average a round of a trunk's replicas; with the same arguments."""

GENERATION_TASK = "trunkline.host_generation"
"""Host a trunk for a silo that generates; its keyword arguments are the fields of ``GenerationDispatch``."""

FILESYSTEM_URL = "filesystem://localhost"

_SCHEMES = ("filesystem", "redis", "rediss")
_MAX_SCHEME = 32  # characters shown
_POLLING_SECONDS = 0.1
_MESSAGES, _CONTROL = "messages", "control"
_REDIS_VISIBILITY_SECONDS = 60.0
"""Redis hands out again what was not acknowledged for so long: a longer task comes again, and is outdated."""


def queue_of(worker: str) -> str:
    """Return the name of a worker's own queue."""
    return f"worker.{worker}"


def refuse_other_brokers(url: str) -> None:
    """See that a URL is for a broker that is served.

    Raises:
        SettingError: It is not; the message shows nothing of the URL but its scheme.
    """
    scheme, mark, _ = url.partition("://")
    if not mark or scheme.lower() not in _SCHEMES:
        seen = f"{scheme[:_MAX_SCHEME]!r}" if mark else "of a URL without ://"
        raise SettingError(
            f"the broker {seen} is not served; use redis://host:6379/0, rediss://..., "
            f"or leave TRUNKLINE_BROKER_URL unset for a folder"
        )


def _served(url: SecretStr) -> SecretStr:
    try:
        if value := url.get_secret_value():
            refuse_other_brokers(value)
    except SettingError as error:
        raise ValueError(error.message) from error
    return url


BrokerUrl = Annotated[SecretStr, AfterValidator(_served)]
"""A setting: the URL of a broker that is served, or nothing for a folder."""


def broker_settings(url: str | None, folder: Path) -> dict[str, object]:
    """Return the Celery settings that have to agree between control plane and workers.

    Args:
        url: ``redis://`` or ``rediss://``; None or ``filesystem://`` for a folder that all processes of this
            machine share.
        folder: That folder; made, for this user alone, when it is the broker.

    Raises:
        SettingError: The URL is for a broker that is not served.
        StorageError: The folder cannot be made.
    """
    url = url or FILESYSTEM_URL
    refuse_other_brokers(url)
    scheme = urlsplit(url).scheme
    options = _folder_options(folder) if scheme == "filesystem" else _redis_options()
    return {
        "broker_url": FILESYSTEM_URL if scheme == "filesystem" else url,
        "broker_transport_options": dict(options),
        "broker_connection_retry_on_startup": True,
        "task_serializer": "json",
        "result_serializer": "json",
        "event_serializer": "json",
        "accept_content": ["json"],
        "result_backend": None,
        "task_ignore_result": True,
        "task_acks_late": False,
        "task_store_errors_even_if_ignored": False,
        "task_default_delivery_mode": "persistent",
        # No limit: a task that could not be acknowledged, because the broker was away when it was over, would
        # count for ever, and the worker would never ask for another. Its own queue holds one or two at most.
        "worker_prefetch_multiplier": 0,
        "worker_enable_remote_control": False,
        "worker_send_task_events": False,
        "enable_utc": True,
    }


def _folder_options(folder: Path) -> Mapping[str, object]:
    messages, control = folder.absolute() / _MESSAGES, folder.absolute() / _CONTROL
    try:
        for path in (messages, control):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"cannot make the broker's folder {folder}: {error.strerror}; choose another, or set "
            "TRUNKLINE_BROKER_URL to a Redis server"
        ) from error
    return {
        "data_folder_in": str(messages),
        "data_folder_out": str(messages),
        "control_folder": str(control),
        "polling_interval": _POLLING_SECONDS,
    }


def _redis_options() -> Mapping[str, object]:
    return {
        "visibility_timeout": _REDIS_VISIBILITY_SECONDS,
        "socket_keepalive": True,
        "socket_connect_timeout": 5.0,
        "health_check_interval": 15,
    }
