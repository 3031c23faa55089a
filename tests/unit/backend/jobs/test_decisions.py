"""Each decision of the reconciler, from what is known of one job."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from backend.db.models import Approval, Desired, JobState
from backend.jobs.decisions import (
    SILO_AWAY,
    Action,
    Assign,
    Dispatch,
    Explain,
    GoOnWithout,
    JobView,
    LeaseView,
    Move,
    Reclaim,
    SiloView,
    decide,
)
from backend.jobs.placing import Need, WorkerView
from backend.jobs.state import ENDED, MOVES

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PATIENCE = timedelta(seconds=60)
WAITED_TOO_LONG = NOW - PATIENCE - timedelta(seconds=1)
APPROVED = SiloView("north", Approval.APPROVED, is_finished=False)
FINISHED = SiloView("north", Approval.APPROVED, is_finished=True)
WAITING = SiloView("south", Approval.WAITING, is_finished=False)
REFUSED = SiloView("south", Approval.REFUSED, is_finished=False)
REVOKED = SiloView("south", Approval.APPROVED, is_finished=False, is_revoked=True)
HEARD = SiloView("north", Approval.APPROVED, is_finished=False, heard_at=NOW + timedelta(seconds=1))
SILENT = SiloView("south", Approval.APPROVED, is_finished=False, heard_at=NOW)
LEASE = LeaseView("gpu-1", is_holder_alive=True, expires_at=NOW + timedelta(seconds=15), is_dispatched=True)


def job(state: JobState, **changes: Any) -> JobView:
    facts: dict[str, Any] = {
        "desired": Desired.RUN,
        "since": NOW,
        "patience": PATIENCE,
        "silos": (APPROVED,),
        "lease": None,
        **changes,
    }
    return JobView(state=state, **facts)


def lease(**changes: Any) -> LeaseView:
    facts = {name: getattr(LEASE, name) for name in LeaseView.__slots__}
    return LeaseView(**{**facts, **changes})


def outcome(view: JobView, *idle: str, online: int | None = None) -> tuple[Any, ...]:
    """What is decided, without its sentences."""
    workers = [WorkerView(name) for name in idle]
    workers += [WorkerView(f"busy-{number}", is_idle=False) for number in range(len(idle), online or 0)]
    action: Action | None = decide(view, workers, now=NOW)
    match action:
        case Move():
            return (Move, action.state, action.why.code, action.why.who)
        case Reclaim() | Explain():
            return (type(action), action.why.code)
        case Assign():
            return (Assign, action.worker)
        case _:
            return (type(action),) if action is not None else (None,)


NOTHING = (None,)
CASES = {
    "waits for an answer": (job(JobState.AWAITING_APPROVAL, silos=(APPROVED, WAITING)), NOTHING),
    "all approved": (
        job(JobState.AWAITING_APPROVAL),
        (Move, JobState.QUEUED, "approved", "silos"),
    ),
    "one refused": (
        job(JobState.AWAITING_APPROVAL, silos=(WAITING, REFUSED)),
        (Move, JobState.FAILED, "refused", "south"),
    ),
    "no answer in time": (
        job(JobState.AWAITING_APPROVAL, silos=(APPROVED, WAITING), since=WAITED_TOO_LONG),
        (Move, JobState.FAILED, "no_answer", "south"),
    ),
    "the last moment of its patience": (
        job(JobState.AWAITING_APPROVAL, silos=(WAITING,), since=NOW - PATIENCE),
        NOTHING,
    ),
    "approved at last, late": (
        job(JobState.AWAITING_APPROVAL, since=WAITED_TOO_LONG),
        (Move, JobState.QUEUED, "approved", "silos"),
    ),
    "no worker for a silo that is away": (
        job(JobState.QUEUED, reason_code=SILO_AWAY, silos=(HEARD, SILENT)),
        NOTHING,
    ),
    "its silo was never heard of": (
        job(JobState.QUEUED, reason_code=SILO_AWAY, silos=(APPROVED,)),
        NOTHING,
    ),
    "its silos are back, no worker is": (
        job(JobState.QUEUED, reason_code=SILO_AWAY, silos=(HEARD,)),
        (Explain, "no_worker"),
    ),
    "a worker that does not begin": (
        job(JobState.PREPARING, lease=LEASE, since=WAITED_TOO_LONG),
        (Explain, "slow_start"),
    ),
    "a worker that took long, and has begun": (
        job(JobState.RUNNING, lease=LEASE, since=WAITED_TOO_LONG),
        NOTHING,
    ),
    "nobody holds the lease": (job(JobState.RUNNING), (Reclaim, "lease_gone")),
    "holder gone": (
        job(JobState.RUNNING, lease=lease(is_holder_alive=False)),
        (Reclaim, "worker_gone"),
    ),
    "holder silent": (
        job(JobState.RUNNING, lease=lease(expires_at=NOW - timedelta(seconds=1))),
        (Reclaim, "lease_expired"),
    ),
    "holder at its last moment": (job(JobState.RUNNING, lease=lease(expires_at=NOW)), NOTHING),
    "task not sent yet": (job(JobState.PREPARING, lease=lease(is_dispatched=False)), (Dispatch,)),
    "task sent, and not taken up for a while": (
        job(JobState.PREPARING, lease=lease(send_again_at=NOW)),
        (Dispatch,),
    ),
    "task sent a moment ago": (
        job(JobState.PREPARING, lease=lease(send_again_at=NOW + timedelta(seconds=1))),
        NOTHING,
    ),
    "task not sent, and too late": (
        job(JobState.PREPARING, lease=lease(is_dispatched=False, is_holder_alive=False)),
        (Reclaim, "worker_gone"),
    ),
    "all is well": (job(JobState.RUNNING, lease=LEASE), NOTHING),
    "a running job to be paused is its worker's": (
        job(JobState.RUNNING, lease=LEASE, desired=Desired.PAUSE),
        NOTHING,
    ),
    "stays paused": (job(JobState.PAUSED, desired=Desired.PAUSE), NOTHING),
    "paused after the wish was taken back": (
        job(JobState.PAUSED),
        (Move, JobState.QUEUED, "resumed", "control plane"),
    ),
    "one has no result yet": (job(JobState.FINISHING, silos=(FINISHED, APPROVED)), NOTHING),
    "all have their results": (
        job(JobState.FINISHING, silos=(FINISHED,)),
        (Move, JobState.COMPLETED, "completed", "silos"),
    ),
    "one does not fetch its result": (
        job(JobState.FINISHING, silos=(FINISHED, APPROVED), since=WAITED_TOO_LONG),
        (Move, JobState.COMPLETED, "completed_without", "north"),
    ),
    "submitted in a transaction of its own": (job(JobState.SUBMITTED), NOTHING),
}


class TestDecide:
    @pytest.mark.parametrize("case", CASES)
    def test_is_as_the_table_says(self, case: str) -> None:
        view, expected = CASES[case]
        assert outcome(view) == expected

    @pytest.mark.parametrize("state", [state for state in JobState if state not in ENDED])
    def test_a_cancellation_comes_first(self, state: JobState) -> None:
        view = job(state, desired=Desired.CANCEL, silos=(REFUSED,), lease=LEASE)
        assert outcome(view, "gpu-1") == (Move, JobState.CANCELLED, "cancelled", "control plane")

    @pytest.mark.parametrize("case", CASES)
    def test_every_move_is_in_the_table_of_states(self, case: str) -> None:
        view, _ = CASES[case]
        action = decide(view, (), now=NOW)
        assert not isinstance(action, Move) or action.state in MOVES[view.state]

    @pytest.mark.parametrize("case", CASES)
    def test_every_reason_says_what_comes_next(self, case: str) -> None:
        action = decide(CASES[case][0], (), now=NOW)
        if isinstance(action, Move | Reclaim | Explain):
            assert all((action.why.who, action.why.what, action.why.where, action.why.next))


class TestPlace:
    @pytest.mark.parametrize(
        ("idle", "online", "last", "expected"),
        [
            ((), 0, None, (Explain, "no_worker")),
            ((), 2, None, (Explain, "busy")),
            ((), 2, "gpu-1", (Explain, "busy")),
            (("gpu-1", "gpu-2"), 2, None, (Assign, "gpu-1")),
            (("gpu-1", "gpu-2"), 2, "gpu-2", (Assign, "gpu-2")),
            (("gpu-1",), 2, "gpu-2", (Assign, "gpu-1")),
        ],
    )
    def test_prefers_who_had_it_last(
        self, idle: tuple[str, ...], online: int, last: str | None, expected: tuple[Any, ...]
    ) -> None:
        assert outcome(job(JobState.QUEUED, last_worker=last), *idle, online=online) == expected

    def test_says_of_every_worker_what_it_lacks(self) -> None:
        need = Need(model="m", family="llama", precision="fp32", lasting_bytes=3 << 30)
        workers = [WorkerView("gpu-1", memory_bytes=2 << 30), WorkerView("gpu-2", families=("glm",))]
        action = decide(job(JobState.QUEUED, need=need), workers, now=NOW)
        assert isinstance(action, Explain)
        assert action.why.code == "no_capable_worker"
        assert action.why.what == (
            "cannot host the trunk: gpu-1: it has 2.00 GiB, and weights, gradients and optimiser need "
            "3.00 GiB; gpu-2: its version does not know the family llama"
        )

    def test_gives_a_drained_worker_nothing(self) -> None:
        workers = [WorkerView("gpu-1", is_drained=True)]
        action = decide(job(JobState.QUEUED, last_worker="gpu-1"), workers, now=NOW)
        assert isinstance(action, Explain)
        assert (action.why.code, "undrain gpu-1" in action.why.next) == ("workers_drained", True)

    def test_a_pause_comes_before_a_worker(self) -> None:
        view = job(JobState.QUEUED, desired=Desired.PAUSE)
        assert outcome(view, "gpu-1") == (Move, JobState.PAUSED, "paused", "control plane")


@pytest.mark.parametrize("state", sorted(set(JobState) - ENDED - {JobState.SUBMITTED, JobState.FINISHING}))
def test_a_job_of_a_revoked_silo_fails_and_names_it(state: JobState) -> None:
    view = job(state, silos=(APPROVED, REVOKED), lease=LEASE)
    assert outcome(view, "gpu-1") == (Move, JobState.FAILED, "silo_revoked", "south")


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.PREPARING, JobState.RUNNING, JobState.PAUSED])
def test_a_job_that_may_lose_silos_goes_on_without_a_revoked_one(state: JobState) -> None:
    view = job(state, silos=(APPROVED, REVOKED), lease=LEASE, min_silos=1)
    assert decide(view, [], now=NOW) == GoOnWithout(("south",))


@pytest.mark.parametrize("silos", [(APPROVED, REVOKED), (REVOKED,)])
def test_where_too_few_are_left_it_fails(silos: tuple[SiloView, ...]) -> None:
    view = job(JobState.RUNNING, silos=silos, lease=LEASE, min_silos=len(silos))
    assert outcome(view, "gpu-1") == (Move, JobState.FAILED, "silo_revoked", "south")


def test_a_job_that_is_trained_waits_for_no_revoked_silo() -> None:
    view = job(JobState.FINISHING, silos=(FINISHED, REVOKED))
    assert outcome(view)[1] == JobState.COMPLETED


def test_a_silo_that_is_revoked_after_its_part_takes_nothing_away() -> None:
    through = SiloView("south", Approval.APPROVED, is_finished=True, is_revoked=True)
    assert outcome(job(JobState.FINISHING, silos=(FINISHED, through)))[1] == JobState.COMPLETED
