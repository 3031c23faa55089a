"""Sending tasks, and what happens while nobody takes them."""

import itertools
import json
import time
from pathlib import Path

import pytest

from backend.jobs.dispatch import CeleryDispatcher
from backend.jobs.reconciler import _LOOK_SECONDS, Reconciler
from splitlearn.control_plane.broker import GENERATION_TASK, TASK_NAME, queue_of
from splitlearn.control_plane.errors import SettingError
from splitlearn.control_plane.generation_schemas import GenerationDispatch
from splitlearn.control_plane.schemas import DispatchBody
from splitlearn.errors import LinkError
from splitlearn.processes import free_port
from tests.unit.backend.conftest import ON_SQLITE_ALONE
from tests.unit.backend.jobs.conftest import Federation

BODY = DispatchBody(job="00000000-0000-0000-0000-000000000000", replica=0, epoch=7)


class TestCelery:
    def test_leaves_a_task_in_the_workers_own_queue(self, tmp_path: Path) -> None:
        CeleryDispatcher(None, tmp_path).send("gpu-1", BODY)
        [message] = [json.loads(path.read_text()) for path in (tmp_path / "messages").iterdir()]
        assert message["headers"]["task"] == TASK_NAME
        assert message["properties"]["delivery_info"]["routing_key"] == queue_of("gpu-1")

    def test_leaves_that_of_a_generation_there_too(self, tmp_path: Path) -> None:
        task = GenerationDispatch(generation=BODY.job, epoch=7)
        CeleryDispatcher(None, tmp_path).send_generation("gpu-1", task)
        [message] = [json.loads(path.read_text()) for path in (tmp_path / "messages").iterdir()]
        assert message["headers"]["task"] == GENERATION_TASK
        assert message["properties"]["delivery_info"]["routing_key"] == queue_of("gpu-1")

    def test_says_that_the_broker_is_away(self, tmp_path: Path) -> None:
        dispatcher = CeleryDispatcher(f"redis://127.0.0.1:{free_port()}/0", tmp_path)
        with pytest.raises(LinkError, match=r"the broker refused a task for 'gpu-1'.*see that it runs"):
            dispatcher.send("gpu-1", BODY)

    def test_says_that_the_folder_is_gone(self, tmp_path: Path) -> None:
        dispatcher = CeleryDispatcher(None, tmp_path / "broker")
        (tmp_path / "broker" / "messages").rmdir()
        with pytest.raises(LinkError, match="the broker refused"):
            dispatcher.send("gpu-1", BODY)

    def test_refuses_another_kind_of_broker(self, tmp_path: Path) -> None:
        with pytest.raises(SettingError, match="amqp"):
            CeleryDispatcher("amqp://localhost", tmp_path)


@ON_SQLITE_ALONE
class TestReconciler:
    def test_places_a_job_without_being_asked_and_stops(self, federation: Federation) -> None:
        reconciler = Reconciler(federation.world.server, federation.dispatcher)
        reconciler.start()
        try:
            job_id = federation.submit()
            federation.approve(job_id)
            deadline = time.monotonic() + 20
            while not federation.dispatcher.sent and time.monotonic() < deadline:
                time.sleep(0.01)
        finally:
            reconciler.stop()
        assert [body.job for _, body in federation.dispatcher.sent] == [job_id]

    def test_asks_a_broker_that_is_away_twice_a_second(self, federation: Federation) -> None:
        asked: list[float] = []

        class Away:
            def send(self, *_: object, **__: object) -> None:
                asked.append(time.monotonic())
                raise LinkError("the broker is away")

            send_generation = send

        federation.approve(federation.submit())
        reconciler = Reconciler(federation.world.server, Away())
        reconciler.start()
        try:
            deadline = time.monotonic() + 20
            while len(asked) < 3 and time.monotonic() < deadline:
                time.sleep(0.01)
        finally:
            reconciler.stop()
        pauses = [after - before for before, after in itertools.pairwise(asked)]
        assert len(pauses) >= 2
        assert min(pauses) >= _LOOK_SECONDS
