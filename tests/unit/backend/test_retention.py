"""What is forgotten of jobs that ended long ago, and what never is."""

from typing import Any

import pytest

from backend import retention
from backend.retention import forget_some
from tests.unit.backend.conftest import ON_SQLITE_ALONE, Clock, World
from tests.unit.backend.jobs.conftest import Federation
from tests.unit.backend.jobs.conftest import federation as federation  # noqa: PLC0414 - handed on

STEPS = 25


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 7)


def ended(federation: Federation) -> str:
    """A job that failed now, with numbers of 25 steps and of a round, and a log line."""
    job_id = federation.running()
    points = [{"name": "loss", "round": 1, "step": step, "value": 1.0} for step in range(-1, STEPS)]
    federation.parties["north"].ok("POST", "/metrics", {"job": job_id, "metrics": points})
    line = {"at": "2026-03-01T12:00:00Z", "level": "info", "event": "step"}
    federation.parties["north"].ok("POST", "/logs", {"job": job_id, "lines": [line]})
    federation.release(job_id, "failed")
    return job_id


def forget(world: World) -> int:
    """Forget until nothing more is to be forgotten; return in how many batches."""
    server = world.server
    batches = 0
    while forget_some(server.database, server.settings, now=server.now()):
        batches += 1
        assert batches < 1000, "there is no end to it"
    return batches


def steps(federation: Federation, job_id: str) -> list[int]:
    items = federation.world.admin.ok("GET", f"/jobs/{job_id}/metrics")["items"]
    return [item["step"] for item in items]


def lines(federation: Federation, job_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = federation.world.admin.ok("GET", f"/jobs/{job_id}/logs")["items"]
    return found


def kept(federation: Federation, job_id: str) -> tuple[str, str]:
    job = federation.job(job_id)
    return job["metrics_kept"], job["logs_kept"]


def signed_in_again(federation: Federation) -> None:
    """Sign in anew: tokens do not live as long as what is forgotten here."""
    world = federation.world
    world.admin.token = world.sign_in(world.first.name, world.first.password).token


class TestNumbers:
    def test_stay_whole_until_their_time(self, federation: Federation, clock: Clock) -> None:
        job_id = ended(federation)
        clock.advance(days=89)
        forget(federation.world)
        signed_in_again(federation)
        assert len(steps(federation, job_id)) == STEPS + 1
        assert kept(federation, job_id) == ("whole", "whole")

    def test_are_thinned_to_a_tenth_and_those_of_rounds_stay(
        self, federation: Federation, clock: Clock
    ) -> None:
        job_id = ended(federation)
        clock.advance(days=91)
        assert forget(federation.world) > 3  # a few at a time
        signed_in_again(federation)
        assert steps(federation, job_id) == [-1, 0, 10, 20]
        assert kept(federation, job_id)[0] == "thinned"
        assert forget(federation.world) == 0

    def test_are_dropped_in_the_end_and_the_job_stays(self, federation: Federation, clock: Clock) -> None:
        job_id = ended(federation)
        clock.advance(days=731)
        forget(federation.world)
        signed_in_again(federation)
        assert steps(federation, job_id) == []
        assert kept(federation, job_id) == ("dropped", "dropped")
        assert federation.job(job_id)["state"] == "failed"

    @ON_SQLITE_ALONE
    def test_of_a_job_that_goes_on_stay(self, federation: Federation, clock: Clock) -> None:
        job_id = federation.running()
        points = [{"name": "loss", "round": 1, "step": 1, "value": 1.0}]
        federation.parties["north"].ok("POST", "/metrics", {"job": job_id, "metrics": points})
        clock.advance(days=5000)
        forget(federation.world)
        signed_in_again(federation)
        assert steps(federation, job_id) == [1]

    @ON_SQLITE_ALONE
    def test_of_a_job_that_is_retried_are_kept_whole_again(
        self, federation: Federation, clock: Clock
    ) -> None:
        job_id = ended(federation)
        clock.advance(days=91)
        forget(federation.world)
        signed_in_again(federation)
        federation.world.admin.ok("POST", f"/jobs/{job_id}/retry", {})
        assert kept(federation, job_id) == ("whole", "whole")

    @ON_SQLITE_ALONE
    def test_zero_days_keep_all_for_ever(self, federation: Federation, clock: Clock) -> None:
        for_ever = {"metric_whole_days": 0, "metric_days": 0, "log_days": 0, "event_days": 0}
        server = federation.world.server
        object.__setattr__(server, "settings", server.settings.model_copy(update=for_ever))
        job_id = ended(federation)
        clock.advance(days=10_000)
        assert forget(federation.world) == 0
        signed_in_again(federation)
        assert len(steps(federation, job_id)) == STEPS + 1
        assert len(lines(federation, job_id)) == 1


class TestLogLines:
    def test_go_when_their_time_is_over(self, federation: Federation, clock: Clock) -> None:
        job_id = ended(federation)
        assert len(lines(federation, job_id)) == 1
        clock.advance(days=91)
        forget(federation.world)
        signed_in_again(federation)
        assert lines(federation, job_id) == []


class TestEvents:
    def test_old_ones_go_and_numbers_go_on(self, federation: Federation, clock: Clock) -> None:
        ended(federation)
        newest = max(numbers(federation))
        clock.advance(days=366)
        forget(federation.world)
        signed_in_again(federation)
        assert numbers(federation) == []
        federation.world.admin.ok("POST", "/jobs", {"spec": federation.spec()})
        assert min(numbers(federation)) == newest + 1

    @ON_SQLITE_ALONE
    def test_younger_ones_stay(self, federation: Federation, clock: Clock) -> None:
        ended(federation)
        clock.advance(days=300)
        signed_in_again(federation)
        federation.world.admin.ok("POST", "/jobs", {"spec": federation.spec()})
        before = numbers(federation)
        clock.advance(days=100)
        forget(federation.world)
        signed_in_again(federation)
        after = numbers(federation)
        assert after == before[-len(after) :]
        assert 0 < len(after) < len(before)


def test_the_audit_is_never_shortened(federation: Federation, clock: Clock) -> None:
    ended(federation)
    before = len(federation.world.audit())
    clock.advance(days=36_500)
    forget(federation.world)
    signed_in_again(federation)
    assert len(federation.world.audit()) == before + 1  # the last sign-in


def numbers(federation: Federation) -> list[int]:
    answer = federation.world.admin("GET", "/events?follow=false")
    assert answer.is_success, answer.text
    return [int(line.removeprefix("id: ")) for line in answer.text.splitlines() if line.startswith("id: ")]
