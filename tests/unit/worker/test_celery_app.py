from pathlib import Path

import pytest

from splitlearn.control_plane.broker import AVERAGE_TASK, TASK_NAME
from splitlearn.control_plane.schemas import DispatchBody
from worker.celery_app import make_app

FIELDS: dict[str, object] = {"job": "c1f73429-3b73-4f6e-9fec-9e0b598202c9", "replica": 0, "epoch": 2}


class Host:
    """Notes what it is asked to host, and may fail."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked: list[DispatchBody] = []
        self._error = error

    def __call__(self, dispatch: DispatchBody) -> None:
        self.asked.append(dispatch)
        if self._error is not None:
            raise self._error


def task(host: Host, folder: Path, fields: dict[str, object], *, name: str = TASK_NAME) -> None:
    app = make_app(broker_url=None, broker_dir=folder, worker="gpu-1", host=host)
    app.tasks[name].apply(kwargs=fields, throw=True)


class TestTask:
    @pytest.mark.parametrize("name", [TASK_NAME, AVERAGE_TASK])
    def test_hands_over_the_dispatch(self, name: str, tmp_path: Path) -> None:
        host = Host()
        task(host, tmp_path, FIELDS, name=name)
        assert host.asked == [DispatchBody.model_validate(FIELDS)]

    @pytest.mark.parametrize(
        "fields", [{}, {**FIELDS, "epoch": 0}, {**FIELDS, "more": 1}, {**FIELDS, "job": "x"}]
    )
    def test_leaves_a_malformed_one(self, fields: dict[str, object], tmp_path: Path) -> None:
        host = Host()
        task(host, tmp_path, fields)
        assert host.asked == []

    def test_never_raises(self, tmp_path: Path) -> None:
        host = Host(RuntimeError("a bug"))
        task(host, tmp_path, FIELDS)
        assert len(host.asked) == 1


def test_a_worker_has_a_queue_of_its_own(tmp_path: Path) -> None:
    app = make_app(broker_url=None, broker_dir=tmp_path, worker="gpu-1", host=Host())
    assert [queue.name for queue in app.conf.task_queues] == ["worker.gpu-1"]
