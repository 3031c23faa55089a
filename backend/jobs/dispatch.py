"""Sending a lease's task to its worker's queue. A hint: the lease decides who trains."""

from pathlib import Path
from typing import Protocol

from celery import Celery
from kombu.exceptions import OperationalError

from splitlearn.control_plane.broker import GENERATION_TASK, TASK_NAME, broker_settings, queue_of
from splitlearn.control_plane.generation_schemas import GenerationDispatch
from splitlearn.control_plane.schemas import DispatchBody
from splitlearn.errors import LinkError


class Dispatcher(Protocol):
    """Whoever can send a task."""

    def send(self, worker: str, body: DispatchBody, *, task: str = TASK_NAME) -> None:
        """Send a task to a worker's own queue.

        Args:
            worker: Whose.
            body: What it is about.
            task: Its name.

        Raises:
            LinkError: The broker refused; try again.
        """

    def send_generation(self, worker: str, body: GenerationDispatch) -> None:
        """Send the task of a session of generation; likewise."""


class CeleryDispatcher:
    """Sends by Celery.

    Args:
        url: The broker; None for the folder.
        folder: Of the embedded broker.
    """

    def __init__(self, url: str | None, folder: Path) -> None:
        self._celery = Celery("trunkline")
        self._celery.conf.update(broker_settings(url, folder))
        # The reconciler asks again by itself; waiting here (6 s by default) would hold up every other job.
        self._celery.conf.broker_transport_options = {
            **self._celery.conf.broker_transport_options,
            "max_retries": 0,
        }

    def send(self, worker: str, body: DispatchBody, *, task: str = TASK_NAME) -> None:
        """See :class:`Dispatcher`."""
        self._send(worker, body, task)

    def send_generation(self, worker: str, body: GenerationDispatch) -> None:
        """See :class:`Dispatcher`."""
        self._send(worker, body, GENERATION_TASK)

    def _send(self, worker: str, body: DispatchBody | GenerationDispatch, task: str) -> None:
        try:
            self._celery.send_task(
                task, kwargs=body.model_dump(mode="json"), queue=queue_of(worker), retry=False
            )
        except (OperationalError, OSError) as error:
            said = str(error).partition("\n")[0]
            raise LinkError(f"the broker refused a task for {worker!r}: {said}; see that it runs") from error
