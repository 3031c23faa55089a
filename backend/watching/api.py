"""``GET /metrics`` of the API, in Prometheus' text format."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from backend.errors import InternalError, NotSignedInError, documented
from backend.server import ServerDep
from backend.watching.watch import Watch
from splitlearn.watching import may_read

router = APIRouter(tags=["health"])


class MetricsRefusedError(NotSignedInError):
    """These numbers are for whoever shows their token; where none is set, for the server's own machine."""

    code = "metrics_refused"
    remedy = "set TRUNKLINE_METRICS_TOKEN, and let Prometheus send it as a bearer token"


def _watch_of(request: Request) -> Watch:
    watch = request.app.state.watch
    assert isinstance(watch, Watch)
    return watch


WatchDep = Annotated[Watch, Depends(_watch_of)]


@router.get(
    "/metrics",
    responses={
        200: {"content": {"text/plain": {}}, "description": "Prometheus' text format, version 0.0.4."},
        **documented(InternalError, MetricsRefusedError),
    },
)
def show_process_metrics(server: ServerDep, watch: WatchDep, request: Request) -> PlainTextResponse:
    """Tell this process's counts, and how jobs, leases and parties stand, to Prometheus."""
    secret = server.settings.metrics_token
    token = None if secret is None else secret.get_secret_value()
    peer = None if request.client is None else request.client.host
    if not may_read(token=token, peer=peer, headers=request.headers):
        raise MetricsRefusedError("metrics are not shown to this address")
    return PlainTextResponse(generate_latest(watch.registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)
