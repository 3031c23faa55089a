"""Celery, set up to take one task at a time from this worker's own queue."""

from collections.abc import Callable
from pathlib import Path

import structlog
from celery import Celery
from kombu import Queue
from pydantic import ValidationError

from splitlearn.control_plane.broker import (
    AVERAGE_TASK,
    GENERATION_TASK,
    TASK_NAME,
    broker_settings,
    queue_of,
)
from splitlearn.control_plane.generation_schemas import GenerationDispatch
from splitlearn.control_plane.schemas import DispatchBody

Host = Callable[[DispatchBody], None]
Generate = Callable[[GenerationDispatch], None]
_log = structlog.get_logger("worker.tasks")


def make_app(
    *,
    broker_url: str | None,
    broker_dir: Path,
    worker: str,
    host: Host,
    generate: Generate | None = None,
) -> Celery:
    """Return the Celery application of one worker.

    Args:
        broker_url: As of the setting; None for the folder.
        broker_dir: The embedded broker's folder.
        worker: This worker's name.
        host: Does what a dispatch says.
        generate: Does what a dispatch of a session of generation says; None where none is hosted.

    Raises:
        SettingError: The broker is not served.
    """
    app = Celery("trunkline", set_as_current=False, fixups=[])
    queue = queue_of(worker)
    app.conf.update(
        broker_settings(broker_url, broker_dir),
        task_default_queue=queue,
        task_queues=[Queue(queue, routing_key=queue)],
        task_create_missing_queues=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_max_retries=None,
    )

    @app.task(name=TASK_NAME, shared=False, ignore_result=True, max_retries=0)  # type: ignore[untyped-decorator]
    def host_trunk(**fields: object) -> None:
        _serve(host, fields)

    @app.task(name=AVERAGE_TASK, shared=False, ignore_result=True, max_retries=0)  # type: ignore[untyped-decorator]
    def average_replicas(**fields: object) -> None:
        _serve(host, fields)

    if generate is not None:

        @app.task(name=GENERATION_TASK, shared=False, ignore_result=True, max_retries=0)  # type: ignore[untyped-decorator]
        def host_generation(**fields: object) -> None:
            _serve_generation(generate, fields)

    return app


def _serve(host: Host, fields: dict[str, object]) -> None:
    """Never raises: Celery has nothing to do about it, and the lease tells the control plane."""
    try:
        dispatch = DispatchBody.model_validate(fields)
    except ValidationError as error:
        _log.warning("task_malformed", fields=sorted(fields), errors=error.error_count())
        return
    try:
        host(dispatch)
    except Exception:  # noqa: BLE001 - the last place that can log it; the worker goes on
        _log.exception("task_failed", job=dispatch.job)


def _serve_generation(generate: Generate, fields: dict[str, object]) -> None:
    """Never raises; likewise."""
    try:
        dispatch = GenerationDispatch.model_validate(fields)
    except ValidationError as error:
        _log.warning("task_malformed", fields=sorted(fields), errors=error.error_count())
        return
    try:
        generate(dispatch)
    except Exception:  # noqa: BLE001 - likewise
        _log.exception("task_failed", generation=dispatch.generation)
