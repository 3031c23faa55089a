"""Logs of the agent: sentences with times, in files that are rotated. Never a row, a token or a key.

What goes in is written by this package and by the library's warnings; an error of the data is logged by its
public sentence only (:func:`loggable`), because its own may quote a label.
"""

import json
import logging
import os
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Literal

from splitlearn.errors import DataError, StorageError, TrunklineError

LogFormat = Literal["console", "json"]
LOGGER = "client_agent"
CORRELATION: ContextVar[str] = ContextVar("correlation", default="")
"""Id of the request that submitted the job at hand; set once for each job, at the edge."""

MAX_LOG_BYTES = 4 << 20
LOGS_KEPT = 3
_FORMAT = "%(asctime)s %(levelname)s %(message)s%(correlation)s"
_TIME = "%Y-%m-%dT%H:%M:%S%z"


def log_to(path: Path, *, also_stderr: bool, log_format: LogFormat = "console") -> logging.Logger:
    """Send the agent's log to a file, in place of where it went before.

    Args:
        path: The file; its older parts lie beside it.
        also_stderr: Show it on standard error, too.
        log_format: Lines for people, or JSON for a collector.

    Raises:
        StorageError: The file cannot be written.
    """
    logger = logging.getLogger(LOGGER)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    handlers: list[logging.Handler] = [_file_handler(path)]
    if also_stderr:
        handlers.append(logging.StreamHandler(sys.stderr))
    for handler in handlers:
        handler.addFilter(_Correlated())
        handler.setFormatter(
            _JsonLines() if log_format == "json" else logging.Formatter(_FORMAT, datefmt=_TIME)
        )
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return logger


class _Correlated(logging.Filter):
    """Adds the id of the request that submitted the job which a line is about."""

    def filter(self, record: logging.LogRecord) -> bool:
        found = CORRELATION.get()
        record.correlation_id = found
        record.correlation = f" [{found}]" if found else ""
        return True


class _JsonLines(logging.Formatter):
    """One JSON object per line, for a collector."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "timestamp": datetime.fromtimestamp(record.created, tz=UTC).isoformat(),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "correlation_id": CORRELATION.get(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps({name: value for name, value in fields.items() if value})


def loggable(error: TrunklineError) -> str:
    """Return the sentence of an error that may stand in a log."""
    return f"{error.code}: {error.public if isinstance(error, DataError) else error.message}"


def open_privately(path: str, flags: int) -> int:
    """Open a file that its owner alone may read, as an ``opener``; one that is there becomes such a file."""
    descriptor = os.open(path, flags, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor


class _PrivateFiles(RotatingFileHandler):
    def _open(self) -> TextIOWrapper:
        return open(self.baseFilename, "a", encoding=self.encoding, opener=open_privately)


def _file_handler(path: Path) -> logging.Handler:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return _PrivateFiles(path, maxBytes=MAX_LOG_BYTES, backupCount=LOGS_KEPT, encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"cannot write the log {path} ({error.strerror}); free space or correct its permissions"
        ) from error
