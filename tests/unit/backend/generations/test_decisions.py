from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from backend.db.models import GenerationState
from backend.generations.decisions import (
    MAX_HOSTINGS,
    Action,
    Assign,
    Dispatch,
    End,
    Explain,
    GenerationView,
    Limits,
    TakeBack,
    decide,
)
from backend.jobs.decisions import LeaseView
from backend.jobs.placing import Need, WorkerView

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
LIMITS = Limits(silence=60 * SECOND, longest=900 * SECOND, yields_after=2 * SECOND)
WAITING = GenerationView(
    state=GenerationState.WAITING,
    silo="north",
    is_silo_out=False,
    is_result_there=True,
    heard_at=NOW,
    epoch=0,
)
LEASE = LeaseView(worker="gpu-1", is_holder_alive=True, expires_at=NOW + 15 * SECOND, is_dispatched=True)
HOSTED = replace(WAITING, state=GenerationState.HOSTED, epoch=1, lease=LEASE, hosted_at=NOW, asked_at=NOW)
FREE = WorkerView("gpu-1")


def decided(view: GenerationView, *workers: WorkerView, is_wanted: bool = False) -> Action | None:
    return decide(view, workers, LIMITS, is_wanted=is_wanted, now=NOW)


def code(action: Action | None) -> str:
    assert isinstance(action, End | TakeBack | Explain)
    return action.why.code


class TestWaiting:
    def test_gets_a_free_worker(self) -> None:
        assert decided(WAITING, replace(FREE, name="gpu-2", is_idle=False), FREE) == Assign("gpu-1")

    def test_gets_the_one_that_had_it_before(self) -> None:
        view = replace(WAITING, last_worker="gpu-2")
        assert decided(view, FREE, replace(FREE, name="gpu-2")) == Assign("gpu-2")

    @pytest.mark.parametrize(
        ("workers", "expected"),
        [
            ((), "no_worker"),
            ((replace(FREE, is_idle=False),), "busy"),
            ((replace(FREE, is_drained=True),), "workers_drained"),
            ((replace(FREE, precisions=("bf16",)),), "no_capable_worker"),
        ],
    )
    def test_says_what_it_waits_for(self, workers: tuple[WorkerView, ...], expected: str) -> None:
        need = Need(model="m", family="llama", precision="fp32", lasting_bytes=0)
        assert code(decided(replace(WAITING, need=need), *workers)) == expected


class TestHosted:
    def test_goes_on(self) -> None:
        assert decided(HOSTED, FREE) is None

    def test_is_sent_where_it_was_not(self) -> None:
        view = replace(HOSTED, lease=replace(LEASE, is_dispatched=False))
        assert decided(view, FREE) == Dispatch()

    def test_is_sent_again_where_nobody_took_it_up(self) -> None:
        view = replace(HOSTED, lease=replace(LEASE, send_again_at=NOW))
        assert decided(view, FREE) == Dispatch()

    @pytest.mark.parametrize(
        ("lease", "expected"),
        [
            (replace(LEASE, is_holder_alive=False), "worker_gone"),
            (replace(LEASE, expires_at=NOW - SECOND), "lease_expired"),
            (None, "lease_gone"),
        ],
    )
    def test_goes_to_another_worker_where_it_was_lost(self, lease: LeaseView | None, expected: str) -> None:
        action = decided(replace(HOSTED, lease=lease), FREE)
        assert isinstance(action, TakeBack)
        assert code(action) == expected

    def test_is_given_up_after_so_many_workers(self) -> None:
        lost = replace(HOSTED, lease=replace(LEASE, is_holder_alive=False))
        assert isinstance(decided(replace(lost, epoch=MAX_HOSTINGS - 1)), TakeBack)
        action = decided(replace(lost, epoch=MAX_HOSTINGS))
        assert isinstance(action, End)
        assert code(action) == "gave_up"


class TestEnd:
    @pytest.mark.parametrize("view", [WAITING, HOSTED])
    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({"is_silo_out": True}, "silo_revoked"),
            ({"is_result_there": False}, "no_result"),
            ({"heard_at": NOW - 61 * SECOND}, "silo_silent"),
        ],
    )
    def test_comes_to_every_session(
        self, view: GenerationView, change: dict[str, object], expected: str
    ) -> None:
        action = decided(replace(view, **change), FREE)  # type: ignore[arg-type]
        assert isinstance(action, End)
        assert code(action) == expected

    def test_comes_after_the_longest_time(self) -> None:
        assert decided(replace(HOSTED, hosted_at=NOW - 900 * SECOND), FREE) is None
        assert code(decided(replace(HOSTED, hosted_at=NOW - 901 * SECOND), FREE)) == "too_long"

    def test_comes_to_an_idle_one_where_training_waits(self) -> None:
        idle = replace(HOSTED, asked_at=NOW - 2 * SECOND)
        assert decided(idle, FREE) is None
        assert code(decided(idle, FREE, is_wanted=True)) == "needed_elsewhere"
        assert decided(replace(HOSTED, asked_at=NOW - SECOND), FREE, is_wanted=True) is None
