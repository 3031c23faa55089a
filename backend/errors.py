"""What the API refuses: each reason a class with a status, a code and a sentence.

Finer errors live in ``errors.py`` of each word and derive from the statuses here.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from backend.db.database import KeptError
from splitlearn.errors import TrunklineError


class ErrorBody(BaseModel):
    """The body of every answer that is not a success."""

    model_config = ConfigDict(extra="forbid")

    code: str = Field(description="Stable word for programs.", examples=["forbidden"])
    message: str = Field(description="One sentence for people: the value seen, the limit.")
    remedy: str | None = Field(default=None, description="What to do next.")


class ApiError(Exception):
    """Base of all refusals.

    Args:
        message: A sentence with the value seen and the limit.
        retry_after_seconds: When it makes sense to ask again.
    """

    status: ClassVar[int] = 400
    code: ClassVar[str] = "bad_request"
    remedy: ClassVar[str | None] = None

    def __init__(self, message: str, *, retry_after_seconds: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_seconds = retry_after_seconds

    def body(self) -> ErrorBody:
        """Return what the caller is told."""
        return ErrorBody(code=self.code, message=self.message, remedy=self.remedy)


class RecordedError(ApiError, KeptError):
    """Base of refusals whose traces (counters, audit rows) are kept although the request fails."""


class NotSignedInError(ApiError):
    """No valid token came with the request."""

    status = 401
    code = "not_signed_in"
    remedy = "send the header 'Authorization: Bearer TOKEN'; sign in or log in to get one"


class ForbiddenError(ApiError):
    """The caller is known, and may not do this."""

    status = 403
    code = "forbidden"
    remedy = "ask an admin of your organisation"


class CrossSiteError(ForbiddenError):
    """A browser's cookie came without the word that our own page sends beside it."""

    code = "cross_site"
    remedy = "send csrf_token of the sign-in, or of GET /api/v1/me, in the header X-CSRF-Token"


class FactorDemandedError(ForbiddenError):
    """The organisation demands a second factor of the caller, who has none yet."""

    code = "second_factor_demanded"
    remedy = "get one, by: trunkline second-factor add; nothing else is open to you before"


class NotFoundError(ApiError):
    """No such thing, or it is another organisation's: the two look the same."""

    status = 404
    code = "not_found"
    remedy = "check the name; things of other organisations are not shown"


class ConflictError(ApiError):
    """What is asked for contradicts what is there."""

    status = 409
    code = "conflict"


class InvalidRequestError(ApiError):
    """A field is missing, unknown, of a wrong type or out of range."""

    status = 422
    code = "invalid_request"
    remedy = "correct the named fields; /docs shows the schema"


class TooLargeError(ApiError):
    """The request's body is over the limit."""

    status = 413
    code = "too_large"
    remedy = "send less in one request"


class TooManyError(ApiError):
    """Too many requests of this kind."""

    status = 429
    code = "too_many"
    remedy = "wait as long as the header Retry-After says"


class UnavailableError(ApiError):
    """The server cannot answer now; the same request may succeed later."""

    status = 503
    code = "unavailable"
    remedy = "try again in a few seconds"


class InternalError(ApiError):
    """A bug of ours. The log has the details under the request's id."""

    status = 500
    code = "internal"
    remedy = "report the request id to the operator, who finds the cause in the log"


@contextmanager
def refused_as(refusal: type[ApiError]) -> Iterator[None]:
    """Turn the shared library's word about what a caller sent into a refusal that the route documents."""
    try:
        yield
    except TrunklineError as error:
        raise refusal(error.message) from error


EVERYWHERE: tuple[type[ApiError], ...] = (
    InvalidRequestError,
    TooLargeError,
    InternalError,
    UnavailableError,
)
SIGNED_IN: tuple[type[ApiError], ...] = (
    *EVERYWHERE,
    NotSignedInError,
    ForbiddenError,
    CrossSiteError,
    FactorDemandedError,
)


def documented(*errors: type[ApiError]) -> dict[int | str, dict[str, Any]]:
    """Return FastAPI's ``responses`` for these errors: one entry per status, an example per code."""
    by_status: dict[int, list[type[ApiError]]] = defaultdict(list)
    for error in errors:
        by_status[error.status].append(error)
    return {status: _response(found) for status, found in sorted(by_status.items())}


def _response(errors: list[type[ApiError]]) -> dict[str, Any]:
    examples = {
        error.code: {
            "summary": (error.__doc__ or "").splitlines()[0],
            "value": {
                "code": error.code,
                "message": (error.__doc__ or "").splitlines()[0],
                "remedy": error.remedy,
            },
        }
        for error in errors
    }
    return {
        "model": ErrorBody,
        "description": ", ".join(examples),
        "content": {"application/json": {"examples": examples}},
    }
