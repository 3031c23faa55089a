"""The web application: routes, limits, and one form for every error."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import structlog
from fastapi import APIRouter, FastAPI, Request, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from sqlalchemy.exc import DataError, SQLAlchemyError
from starlette.exceptions import HTTPException

from backend.app_prefix import API_PREFIX
from backend.artifacts.api import router as artifacts_router
from backend.audit.api import router as audit_router
from backend.auth.access import FIELD, access_of
from backend.auth.api import router as auth_router
from backend.auth.second_factor_api import router as second_factor_router
from backend.datasets.api import router as datasets_router
from backend.db.absence import is_away
from backend.db.models import PartyKind
from backend.errors import (
    ApiError,
    ErrorBody,
    InvalidRequestError,
    NotFoundError,
    TooLargeError,
    UnavailableError,
)
from backend.events.api import router as events_router
from backend.federation.api import router as federation_router
from backend.generations.api import router as generations_router
from backend.generations.silo_api import router as silo_generations_router
from backend.generations.worker_api import router as worker_generations_router
from backend.health import router as health_router
from backend.jobs.api import router as jobs_router
from backend.jobs.silo_api import router as silo_jobs_router
from backend.jobs.silo_watch import SiloWatch
from backend.jobs.worker_api import router as worker_router
from backend.limits import BodyLimit
from backend.log import RequestLog
from backend.metrics.api import router as metrics_router
from backend.models.api import router as models_router
from backend.notices.api import router as notices_router
from backend.openid.api import router as openid_router
from backend.openid.page import refusal_page, wants_page
from backend.organizations.api import router as organizations_router
from backend.parties.admission_api import router as admission_router
from backend.parties.api import make_router as make_party_router
from backend.parties.workers_api import router as workers_router
from backend.security_headers import SecurityHeaders
from backend.server import Server
from backend.tickets.api import router as tickets_router
from backend.users.api import router as users_router
from backend.watching.api import router as watching_router
from backend.watching.logs_api import router as logs_router
from backend.watching.standing import StandingCollector
from backend.watching.watch import Watch
from splitlearn.errors import TrunklineError

_MAX_NAMED_FIELDS = 10
_ABSENCE_SECONDS = 1
_OF_OUR_OWN = "Value error, "  # pydantic puts it before sentences that are ours
_log = structlog.get_logger("backend.app")


Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def create_app(server: Server, *, lifespan: Lifespan | None = None) -> FastAPI:
    """Return the application over an opened world.

    Args:
        server: The world.
        lifespan: What runs while it serves (``backend.background``); None for answers alone.
    """
    app = FastAPI(
        title="Trunkline control plane",
        version="1",
        description="Every error has the same form: code, message, remedy.",
        generate_unique_id_function=_operation_id,
        redoc_url=None,
        telemetry=None,
        lifespan=lifespan,
    )
    app.state.server = server
    app.state.watch = watch = Watch()
    watch.registry.register(StandingCollector(lambda: app.state.server))
    app.state.silo_watch = SiloWatch(lambda: app.state.server)
    app.add_middleware(
        BodyLimit, max_bytes=server.settings.max_body_bytes, uploads=f"{API_PREFIX}{artifacts_router.prefix}/"
    )
    app.add_middleware(RequestLog, observe=watch.request)
    app.add_middleware(SecurityHeaders, is_https=server.settings.audience.startswith("https://"))
    for outside in (health_router, watching_router):
        _describe_access(outside)
        app.include_router(outside)
    api = APIRouter(prefix=API_PREFIX)
    for router in (
        # Looked through in this order at every request: first what every party asks for all the time.
        admission_router,
        silo_jobs_router,
        metrics_router,
        worker_router,
        tickets_router,
        logs_router,
        auth_router,
        second_factor_router,
        openid_router,
        users_router,
        organizations_router,
        federation_router,
        *(make_party_router(kind) for kind in PartyKind),
        workers_router,
        audit_router,
        models_router,
        artifacts_router,
        datasets_router,
        jobs_router,
        generations_router,
        silo_generations_router,
        worker_generations_router,
        events_router,
        notices_router,
    ):
        _describe_access(router)
        api.include_router(router)
    app.include_router(api)
    _add_error_handlers(app)
    return app


def _describe_access(router: APIRouter) -> None:
    for route in router.routes:
        if isinstance(route, APIRoute):
            route.openapi_extra = {**(route.openapi_extra or {}), FIELD: access_of(route)}


def _operation_id(route: APIRoute) -> str:
    return route.name


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def refuse(request: Request, error: ApiError) -> Response:
        return _answer(request, error)

    @app.exception_handler(TrunklineError)
    async def refuse_input(request: Request, error: TrunklineError) -> Response:
        return _answer(request, InvalidRequestError(error.message))

    @app.exception_handler(DataError)
    async def refuse_value(request: Request, error: DataError) -> Response:
        # PostgreSQL keeps no NUL in a text; everything else is bounded by the fields' own limits.
        _log.warning("value_refused", reason=type(error.orig).__name__)
        return _answer(
            request, InvalidRequestError("a text holds a NUL character, or a number is out of range")
        )

    @app.exception_handler(SQLAlchemyError)
    async def refuse_for_now(request: Request, error: SQLAlchemyError) -> Response:
        if not is_away(error):
            raise error
        _log.warning("database_away", during="a request")
        away = "the database does not answer at this moment"
        return _answer(request, UnavailableError(away, retry_after_seconds=_ABSENCE_SECONDS))

    @app.exception_handler(RequestValidationError)
    async def refuse_fields(request: Request, error: RequestValidationError) -> Response:
        return _answer(request, InvalidRequestError("; ".join(_sentences(error))))

    @app.exception_handler(HTTPException)
    async def refuse_route(request: Request, error: HTTPException) -> Response:
        return _answer_http(request, error)


def _answer(request: Request, error: ApiError) -> Response:
    headers: dict[str, str] = {}
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(error.retry_after_seconds)
    if error.status == 401:  # noqa: PLR2004 - RFC 9110, section 11.6.1 asks for this header
        headers["WWW-Authenticate"] = "Bearer"
    if wants_page(request):
        return refusal_page(error, headers=headers)
    return JSONResponse(error.body().model_dump(), status_code=error.status, headers=headers)


def _answer_http(request: Request, error: HTTPException) -> Response:
    if error.status_code == TooLargeError.status:
        limit = request.app.state.server.settings.max_body_bytes
        return _answer(request, TooLargeError(f"the body is larger than {limit} bytes"))
    if error.status_code == status.HTTP_400_BAD_REQUEST:  # a body that cannot be read at all
        return _answer(request, InvalidRequestError(f"body: {error.detail}"))
    if error.status_code == NotFoundError.status:
        return _answer(request, NotFoundError(f"there is no {request.url.path[:200]!r} here"))
    if error.status_code == status.HTTP_405_METHOD_NOT_ALLOWED:
        served = (error.headers or {}).get("Allow", "another method")
        message = f"{request.method} is not served at {request.url.path[:200]!r}; use {served}"
        body = ErrorBody(code="http", message=message, remedy="/docs shows what is served")
    else:
        body = ErrorBody(code="http", message=str(error.detail), remedy="/docs shows what is served")
    return JSONResponse(body.model_dump(), status_code=error.status_code, headers=dict(error.headers or {}))


def _sentences(error: RequestValidationError) -> list[str]:
    details: list[dict[str, Any]] = list(error.errors())
    sentences = [f"{_field(item['loc'])}: {item['msg'].removeprefix(_OF_OUR_OWN)}" for item in details]
    left = len(sentences) - _MAX_NAMED_FIELDS
    return sentences[:_MAX_NAMED_FIELDS] + ([f"and {left} more"] if left > 0 else [])


def _field(where: tuple[int | str, ...]) -> str:
    """Return a field's name; in which part of the request it is goes without saying."""
    return ".".join(str(part) for part in where[1:] or where)
