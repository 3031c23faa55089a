"""Whether the process lives, and whether it can serve."""

from collections.abc import Callable

import redis
from fastapi import APIRouter
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from backend.db import check_schema
from backend.db.schema import SchemaVersionError
from backend.errors import InternalError, UnavailableError, documented
from backend.schemas import Answer
from backend.server import Server, ServerDep
from backend.settings import Settings
from splitlearn.control_plane.broker import broker_settings
from splitlearn.errors import TrunklineError

router = APIRouter(tags=["health"])
_BROKER_SECONDS = 1.0


class HealthAnswer(Answer):
    """All is well."""

    status: str = "ok"


class NotReadyError(UnavailableError):
    """Something that this process needs is not there; the message names it."""

    code = "not_ready"
    remedy = "see to what is named; the process goes on by itself once it is there"


@router.get("/healthz", responses=documented(InternalError))
def is_alive() -> HealthAnswer:
    """Tell that the process answers."""
    return HealthAnswer()


@router.get("/readyz", responses=documented(InternalError, NotReadyError))
def is_ready(server: ServerDep) -> HealthAnswer:
    """Tell whether database, migrations and broker are there; if not, which is missing."""
    missing = [sentence for check in CHECKS if (sentence := check(server)) is not None]
    if missing:
        raise NotReadyError("; ".join(missing))
    return HealthAnswer()


def missing_database(server: Server) -> str | None:
    """Name what the database lacks: an answer, or this version's tables."""
    try:
        check_schema(server.database)
        with server.database.read() as session:
            session.execute(text("SELECT 1"))
    except SchemaVersionError as error:
        return f"migrations: {error.message}"
    except (
        SQLAlchemyError,
        TrunklineError,
    ):  # their sentences name host and user, which nobody here may know
        return "database: it does not answer"
    return None


def missing_broker(server: Server) -> str | None:
    """Name what the broker lacks: an answer, or its folder."""
    settings = server.settings
    if settings.broker_url is not None:
        return _missing_redis(settings, settings.broker_url.get_secret_value())
    try:
        broker_settings(None, settings.broker_dir)
    except TrunklineError as error:
        return f"broker: {error.message}"
    return None


def _missing_redis(settings: Settings, url: str) -> str | None:
    try:
        broker_settings(url, settings.broker_dir)  # refuses what is no Redis
        with redis.Redis.from_url(
            url, socket_connect_timeout=_BROKER_SECONDS, socket_timeout=_BROKER_SECONDS
        ) as client:
            client.ping()
    except TrunklineError as error:
        return f"broker: {error.message}"
    except (RedisError, ValueError) as error:
        return f"broker: Redis does not answer ({type(error).__name__})"
    return None


CHECKS: tuple[Callable[[Server], str | None], ...] = (missing_database, missing_broker)
