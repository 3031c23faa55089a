"""Whether the process lives, and whether it can serve."""

from fastapi import APIRouter
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from backend.db import check_schema
from backend.errors import InternalError, UnavailableError, documented
from backend.schemas import Answer
from backend.server import ServerDep
from splitlearn.errors import StorageError

router = APIRouter(tags=["health"])


class HealthAnswer(Answer):
    """All is well."""

    status: str = "ok"


@router.get("/healthz", responses=documented(InternalError))
def is_alive() -> HealthAnswer:
    """Tell that the process answers."""
    return HealthAnswer()


@router.get("/readyz", responses=documented(InternalError, UnavailableError))
def is_ready(server: ServerDep) -> HealthAnswer:
    """Tell whether the database answers and has this version's tables."""
    try:
        check_schema(server.database)
        with server.database.read() as session:
            session.execute(text("SELECT 1"))
    except (SQLAlchemyError, StorageError) as error:
        raise UnavailableError("the database does not answer, or has another version's tables") from error
    return HealthAnswer()
