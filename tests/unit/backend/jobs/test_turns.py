"""Jobs that wait for one worker take turns; a drained worker gets none."""

from typing import Any

import pytest

from tests.unit.backend.jobs.conftest import CAPABILITIES, Federation

DEVICE: dict[str, Any] = dict[str, Any](CAPABILITIES)["device"]
TURN = 31.0  # seconds, of which 30 are a turn


def waiting(federation: Federation, **changes: Any) -> str:
    """A job that is approved while the worker is busy."""
    federation.clock.advance(seconds=1)
    job_id = federation.submit(**changes)
    federation.approve(job_id)
    federation.look()
    return job_id


def took(federation: Federation) -> str:
    """The job whose task was sent last."""
    return federation.dispatcher.sent[-1][1].job


def give_way(federation: Federation, job_id: str, epoch: int) -> None:
    federation.clock.advance(seconds=1)
    federation.release(job_id, "drained", epoch=epoch)
    federation.look()


class TestTurn:
    def test_ends_when_another_job_waits_and_it_has_lasted(self, federation: Federation) -> None:
        first = federation.running()
        assert federation.renew(first, round_number=1)["turn_over"] is False
        second = waiting(federation)
        assert federation.state(second) == ("queued", "busy")
        assert federation.renew(first, round_number=1)["turn_over"] is False
        federation.clock.advance(seconds=TURN)
        assert federation.renew(first, round_number=1)["turn_over"] is True

    def test_goes_on_where_nobody_waits(self, federation: Federation) -> None:
        first = federation.running()
        federation.clock.advance(seconds=TURN)
        assert federation.renew(first, round_number=1)["turn_over"] is False

    def test_goes_on_where_another_worker_is_free_for_who_waits(self, federation: Federation) -> None:
        first = federation.running()
        second = waiting(federation)
        federation.clock.advance(seconds=TURN)
        federation.renew(first, round_number=1)
        federation.another_worker("gpu-2")
        assert federation.renew(first, round_number=1)["turn_over"] is False
        federation.look()
        assert federation.job(second)["lease"]["worker"] == "gpu-2"

    def test_goes_on_where_who_waits_cannot_use_the_worker(self, federation: Federation) -> None:
        first = federation.running()
        small = {**DEVICE, "total_memory_bytes": 16}
        federation.parties["worker"].ok("PUT", "/worker/capabilities", {**CAPABILITIES, "device": small})
        second = waiting(federation)
        assert federation.state(second) == ("queued", "no_capable_worker")
        federation.clock.advance(seconds=TURN)
        assert federation.renew(first, round_number=1)["turn_over"] is False

    def test_passes_to_the_one_that_waits_and_back(self, federation: Federation) -> None:
        first = federation.running()
        second = waiting(federation)
        order = [first]
        for epoch in (1, 1, 2, 2, 3):
            give_way(federation, order[-1], epoch)
            order.append(took(federation))
        assert order == [first, second] * 3

    def test_goes_to_a_job_of_its_own_whatever_came_before_it(self, federation: Federation) -> None:
        first = federation.running()
        second, third = waiting(federation), waiting(federation)
        order = [first]
        for epoch in (1, 1, 1, 2):
            give_way(federation, order[-1], epoch)
            order.append(took(federation))
        assert order == [first, second, third, first, second]


class TestCapability:
    def test_of_a_job_that_no_worker_can_host_says_why_for_each(self, federation: Federation) -> None:
        small = {**DEVICE, "total_memory_bytes": 16}
        federation.parties["worker"].ok("PUT", "/worker/capabilities", {**CAPABILITIES, "device": small})
        job_id = federation.placed()
        reason = federation.job(job_id)["reason"]
        assert reason["code"] == "no_capable_worker"
        assert reason["what"].startswith("cannot host the trunk: worker: it has 0.00 GiB, and weights")
        assert "trunkline jobs plan" in reason["next"]
        federation.parties["worker"].ok("PUT", "/worker/capabilities", CAPABILITIES)
        federation.look()
        assert federation.state(job_id) == ("preparing", "leased")

    def test_the_plan_says_which_layers_lie_where(self, federation: Federation) -> None:
        device = {**DEVICE, "id": "cuda:0", "kind": "cuda"}
        [whole] = self.plan(federation, device)["placements"][0]["layers"]
        total = whole["num_bytes"]
        # Each holds one of the trunk's two layers, and neither both.
        half = {**device, "free_memory_bytes": total - 1}
        found = self.plan(federation, half, {**half, "id": "cuda:1"})
        assert found["workers"] == ["worker"]
        [placement] = found["placements"]
        assert placement["lacks"] is None
        places = [(part["device"], part["first_layer"], part["last_layer"]) for part in placement["layers"]]
        assert places == [("cuda:0", 1, 1), ("cuda:1", 2, 2)]
        assert all(0 < part["num_bytes"] <= part["free_bytes"] == total - 1 for part in placement["layers"])

    def test_the_plan_says_what_a_worker_lacks(self, federation: Federation) -> None:
        found = self.plan(federation, {**DEVICE, "id": "cpu", "free_memory_bytes": 10})
        assert found["workers"] == []
        [placement] = found["placements"]
        assert placement["layers"] == []
        assert placement["lacks"].startswith("layers 1 to 2 of the trunk need")

    def plan(self, federation: Federation, *devices: dict[str, Any]) -> dict[str, Any]:
        told = {**CAPABILITIES, "device": devices[0], "devices": devices}
        federation.parties["worker"].ok("PUT", "/worker/capabilities", told)
        spec = federation.spec()
        for silo in spec["silos"]:
            silo["cut"] = {"bottom_layers": 1, "top_layers": 1}
        found: dict[str, Any] = federation.world.admin.ok("POST", "/jobs/plan", {"spec": spec})
        return found

    def test_several_devices_count_together(self, federation: Federation) -> None:
        device = {**DEVICE, "id": "cuda:0", "kind": "cuda", "total_memory_bytes": 4000}
        told = {**CAPABILITIES, "device": device, "devices": [device, {**device, "id": "cuda:1"}]}
        federation.parties["worker"].ok("PUT", "/worker/capabilities", told)
        [shown] = federation.world.admin.ok("GET", "/workers")["items"]
        assert [each["id"] for each in shown["devices"]] == ["cuda:0", "cuda:1"]
        assert federation.state(federation.placed()) == ("preparing", "leased")


class TestDrain:
    def name(self, federation: Federation) -> str:
        name: str = federation.world.admin.ok("GET", "/workers")["items"][0]["name"]
        return name

    def test_ends_the_round_and_keeps_jobs_away_until_it_is_undone(self, federation: Federation) -> None:
        job_id, name = federation.running(), self.name(federation)
        drained = federation.world.admin.ok("POST", f"/workers/{name}/drain")
        assert drained["drained_at"] is not None
        assert federation.renew(job_id, round_number=1)["drain"] is True
        give_way(federation, job_id, 1)
        assert federation.state(job_id) == ("queued", "workers_drained")
        assert f"trunkline workers undrain {name}" in federation.job(job_id)["reason"]["next"]
        assert federation.world.admin.ok("POST", f"/workers/{name}/undrain")["drained_at"] is None
        federation.look()
        assert federation.state(job_id) == ("preparing", "leased")

    def test_another_worker_goes_on_at_once(self, federation: Federation) -> None:
        job_id, name = federation.running(), self.name(federation)
        federation.another_worker("gpu-2")
        federation.world.admin.ok("POST", f"/workers/{name}/drain")
        give_way(federation, job_id, 1)
        assert federation.job(job_id)["lease"]["worker"] == "gpu-2"

    def test_asked_twice_leaves_one_trace(self, federation: Federation) -> None:
        name = self.name(federation)
        first = federation.world.admin.ok("POST", f"/workers/{name}/drain")
        federation.clock.advance(seconds=TURN)
        assert federation.world.admin.ok("POST", f"/workers/{name}/drain") == first
        actions = [row["action"] for row in federation.world.admin.ok("GET", "/audit")["items"]]
        assert actions.count("drain") == 1

    @pytest.mark.parametrize("word", ["drain", "undrain"])
    def test_of_an_unknown_worker_is_not_found(self, word: str, federation: Federation) -> None:
        assert federation.world.admin.refused("POST", f"/workers/nobody/{word}") == (404, "not_found")
