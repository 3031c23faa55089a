"""The stage's own parts: counting across restarts, and servers that are not there."""

from pathlib import Path

import httpx2
import pytest

from bench.stage import ServerAbsentError, own_redis
from bench.stage.results import _digest
from bench.stage.steps import StepCounter


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """What a worker counts now; None while it does not answer."""
    counts: list[int | None] = [0]

    def get(_client: object, url: str) -> httpx2.Response:
        if counts[0] is None:
            raise httpx2.ConnectError("refused")
        text = f"# HELP steps\ntrunkline_worker_steps_total {float(counts[0])}\n"
        return httpx2.Response(200, text=text, request=httpx2.Request("GET", url))

    monkeypatch.setattr(httpx2.Client, "get", get)
    return counts


class TestStepCounter:
    def test_adds_what_each_process_has_counted(self, told: list[int | None]) -> None:
        counter = StepCounter({"worker-1": 1})
        for pid, count in ((7, 3), (7, 20), (8, 0), (8, 5)):
            told[0] = count
            counter.look("worker-1", pid)
        assert counter.total == 25
        counter.close()

    def test_a_worker_that_does_not_answer_has_done_no_more(self, told: list[int | None]) -> None:
        counter = StepCounter({"worker-1": 1})
        for count in (4, None):
            told[0] = count
            counter.look("worker-1", 7)
        assert counter.total == 4
        counter.close()


class TestDigest:
    def test_tells_names_and_bytes_apart(self, tmp_path: Path) -> None:
        seen = set()
        for name, content in (("a", b"xy"), ("a", b"xz"), ("b", b"xy")):
            folder = tmp_path / f"{name}-{content.decode()}"
            folder.mkdir()
            (folder / f"{name}.safetensors").write_bytes(content)
            seen.add(_digest(folder))
        assert len(seen) == 3

    def test_refuses_a_folder_without_tensors(self, tmp_path: Path) -> None:
        with pytest.raises(AssertionError, match="no tensors"):
            _digest(tmp_path)


class TestAbsentServer:
    def test_is_told_in_a_sentence(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("bench.stage.servers.shutil.which", lambda _: None)
        with pytest.raises(ServerAbsentError, match="install Redis"), own_redis():
            pass
