"""What a worker does for a silo that generates: the trunk that it loads, and how it gives the lease back."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from splitlearn.control_plane.broker import GENERATION_TASK
from splitlearn.control_plane.errors import LeaseLostError
from splitlearn.control_plane.generation_schemas import GenerationDispatch, GenerationLease
from splitlearn.control_plane.schemas import BlobRef
from splitlearn.errors import ModelError, StorageError
from splitlearn.exchange import PeerAwayError
from splitlearn.generation import CacheLimits
from splitlearn.parties import StuckError
from splitlearn.partition import ModelFolder, segment_state
from tests.unit.worker.test_trunk_cache import CPU, demand
from tests.unit.worker.test_trunk_cache import folder as folder  # noqa: PLC0414 - a fixture
from worker.celery_app import make_app
from worker.generation_attempt import trained_trunk
from worker.generation_host import GenerationHost, ended_body, failed_body
from worker.generation_keeper import GenerationKeeper, Progress
from worker.home import Home
from worker.orders import Order, Orders
from worker.trunk_cache import TrunkCache

JOB = "c1f73429-3b73-4f6e-9fec-9e0b598202c9"
LEASE = GenerationLease(
    generation=JOB,
    job=JOB,
    name="job",
    silo="north",
    epoch=2,
    valid_seconds=15,
    renew_seconds=0.01,
    idle_seconds=60,
    spec="",
    signature="",
    round=3,
    result=BlobRef(digest="00" * 32, num_bytes=1),
)
PROGRESS = Progress(num_tokens=41, idle_seconds=0.5)


class TestTrainedTrunk:
    @pytest.mark.parametrize("kind", ["lora", "full"])
    def test_has_the_results_values_and_leaves_none_of_them(
        self, kind: str, folder: ModelFolder, tmp_path: Path
    ) -> None:
        cache, wanted = TrunkCache([CPU]), demand(folder, adapter={"kind": kind})
        first = segment_state(cache.get(wanted))
        result = {name: tensor + 1 for name, tensor in first.items()}
        save_file(result, tmp_path / "result")
        trained = segment_state(trained_trunk(cache, wanted, tmp_path / "result"))
        assert all(torch.equal(trained[name], result[name]) for name in result)
        after = segment_state(cache.get(wanted))
        assert all(torch.equal(after[name], first[name]) for name in first)

    def test_refuses_another_jobs_result(self, folder: ModelFolder, tmp_path: Path) -> None:
        save_file({"another": torch.zeros(1)}, tmp_path / "result")
        with pytest.raises(StorageError, match="another job"):
            trained_trunk(TrunkCache([CPU]), demand(folder), tmp_path / "result")

    def test_refuses_a_damaged_file(self, folder: ModelFolder, tmp_path: Path) -> None:
        (tmp_path / "result").write_bytes(b"no tensors")
        with pytest.raises(StorageError, match="cannot be read"):
            trained_trunk(TrunkCache([CPU]), demand(folder), tmp_path / "result")


class TestGivingBack:
    @pytest.mark.parametrize(
        ("order", "has_left", "expected"),
        [
            (None, True, "finished"),
            (None, False, "idle"),
            (Order.DRAIN_NOW, False, "drained"),
        ],
    )
    def test_says_how_it_ended(self, order: Order | None, has_left: bool, expected: str) -> None:  # noqa: FBT001
        body = ended_body(LEASE, PROGRESS, order, has_left=has_left, who="worker:gpu-1")
        assert (body.outcome, body.code, body.epoch, body.num_tokens) == (expected, expected, 2, 41)

    @pytest.mark.parametrize(
        ("error", "outcome", "code"),
        [
            (ModelError("it has no layers; take another"), "failed", "model"),
            (PeerAwayError("the silo was away; see that it runs"), "idle", "silo_away"),
            (StuckError("it did not come back; see the device"), "stuck", "stuck"),
        ],
    )
    def test_says_what_went_wrong(self, error: Any, outcome: str, code: str) -> None:
        body = failed_body(LEASE, error, PROGRESS, who="worker:gpu-1")
        assert (body.outcome, body.code) == (outcome, code)
        assert body.reason.what == error.message.partition(";")[0]


class FakeClient:
    """Answers renewals in turn, by an answer or an error."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.told = list(answers), []  # type: ignore[var-annotated]

    async def renew_generation(self, _: str, body: Any, *, patience_seconds: float) -> Any:  # noqa: ARG002
        self.told.append(body)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class FakeHome:
    """The control plane's thread, in this one."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def start(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, asyncio.get_running_loop())

    async def ask(self, question: Callable[[Any], Awaitable[Any]]) -> Any:
        return await question(self.client)

    beside = Home.beside


class Answer:
    def __init__(self, *, drain: bool) -> None:
        self.drain = drain


class TestKeeper:
    @pytest.mark.parametrize(
        ("answers", "expected"),
        [
            ((Answer(drain=False), LeaseLostError("it has ended")), Order.LOST),
            ((Answer(drain=False), Answer(drain=True)), Order.DRAIN_NOW),
        ],
    )
    def test_passes_on_that_it_is_over(self, answers: tuple[Any, ...], expected: Order) -> None:
        client, confirmed = FakeClient(*answers), []

        async def keep() -> Order:
            orders = Orders()
            keeper = GenerationKeeper(
                FakeHome(client),  # type: ignore[arg-type]
                LEASE,
                orders,
                progress=lambda: PROGRESS,
                on_confirmed=lambda: confirmed.append(1),
            )
            async with keeper.keeping():
                return await asyncio.wait_for(orders.immediate(), timeout=10)

        assert asyncio.run(keep()) is expected
        assert (client.told[0].num_tokens, client.told[0].idle_seconds) == (41, 0.5)
        assert confirmed


class TestHost:
    def test_leaves_an_outdated_dispatch(self) -> None:
        class Outdated:
            async def take_generation(self, *_: object) -> GenerationLease:
                raise LeaseLostError("the lease is at epoch 3")

        station: Any = type("Station", (), {"home": FakeHome(Outdated())})
        GenerationHost(station, limits=CacheLimits()).host(GenerationDispatch(generation=JOB, epoch=2))


class TestTask:
    def test_hands_over_the_dispatch_and_leaves_a_malformed_one(self, tmp_path: Path) -> None:
        asked: list[GenerationDispatch] = []
        app = make_app(
            broker_url=None,
            broker_dir=tmp_path,
            worker="gpu-1",
            host=lambda _: None,
            generate=asked.append,
        )
        for fields in ({"generation": JOB, "epoch": 2}, {"generation": JOB, "epoch": 0}, {"job": JOB}):
            app.tasks[GENERATION_TASK].apply(kwargs=fields, throw=True)
        assert asked == [GenerationDispatch(generation=JOB, epoch=2)]

    def test_never_raises(self, tmp_path: Path) -> None:
        def fail(_: GenerationDispatch) -> None:
            raise RuntimeError("a bug")

        app = make_app(
            broker_url=None, broker_dir=tmp_path, worker="gpu-1", host=lambda _: None, generate=fail
        )
        app.tasks[GENERATION_TASK].apply(kwargs={"generation": JOB, "epoch": 2}, throw=True)
