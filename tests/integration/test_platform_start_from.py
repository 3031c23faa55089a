"""Jobs that begin at earlier ones' results, every party its own process, one killed in the first round."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from splitlearn.simulation.demo_options import DemoOptions
from splitlearn.spec import LoraAdapter
from tests.integration.platform_jobs import PlatformJobs, platform_jobs

pytestmark = pytest.mark.slow

OPTIONS = DemoOptions(
    silos=3,
    silo_blocks="local",
    rounds=1,
    steps_per_round=6,
    batch_size=2,
    max_tokens=32,
    evaluation_rows=4,
    centralised=False,
)
LORA = LoraAdapter(r=4, freeze_a=True)
# Another seed: what begins anew is drawn anew. Long enough for somebody to be killed in its first round.
LATER: dict[str, Any] = {"seed": 6, "rounds": 2, "steps_per_round": 16}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformJobs]:
    with platform_jobs(OPTIONS, tmp_path_factory.mktemp("jobs")) as running:
        yield running


def folder_of(jobs: PlatformJobs, name: str) -> str:
    """Where the job of this name in one process left its results."""
    return str(jobs.folder / "in-process" / name)


class TestFullModels:
    def test_end_as_in_one_process_also_where_the_worker_is_killed(self, jobs: PlatformJobs) -> None:
        jobs.assert_equal(jobs.first_job, jobs.in_process(jobs.spec, "first"))

        later = jobs.spec.model_copy(update=LATER)
        job_id = jobs.submit(later.model_copy(update={"start_from": jobs.first_job}))
        job = jobs.follow(job_id, in_first_round=jobs.kill_worker)
        assert job["state"] == "completed", job["reason"]
        start = {"start_from": folder_of(jobs, "first")}
        jobs.assert_equal(job_id, jobs.in_process(later.model_copy(update=start), "later"))
        anew = jobs.in_process(later, "anew")
        ours = jobs.results(job_id, later)
        theirs = {silo.name: jobs.tensors(silo) for silo in anew.silos}
        assert any(
            not torch.equal(ours[silo][name], theirs[silo][name]) for silo in ours for name in ours[silo]
        )

    @pytest.mark.long
    def test_of_replicas_end_as_in_one_process(self, jobs: PlatformJobs) -> None:
        jobs.in_process(jobs.spec, "for-replicas")
        shape = {"schedule": "hierarchical", "replicas": 2, "steps_per_round": 3}
        later = jobs.spec.model_copy(update={**LATER, **shape})
        job_id = jobs.run(later.model_copy(update={"start_from": jobs.first_job}))
        start = {"start_from": folder_of(jobs, "for-replicas")}
        jobs.assert_equal(job_id, jobs.in_process(later.model_copy(update=start), "replicas"))

    def test_a_silo_that_lost_its_result_refuses_before_the_first_step(self, jobs: PlatformJobs) -> None:
        silo = jobs.spec.silos[1].name
        result = jobs.federation.deployment.agent_dir(silo) / "jobs" / jobs.first_job / "result"
        moved = result.with_name("moved")
        shutil.move(result, moved)
        try:
            job = jobs.follow(jobs.submit(jobs.spec.model_copy(update={"start_from": jobs.first_job})))
        finally:
            shutil.move(moved, result)
        assert (job["state"], job["rounds_committed"]) == ("failed", 0)
        (told,) = (part for part in job["silos"] if part["approval"] == "refused")
        assert (told["name"], told["approval_code"]) == (silo, "start_gone")
        assert "its result of the job that this one begins at (start_from) is gone" in told["approval_reason"]


@pytest.mark.long
class TestAdapters:
    def test_end_as_in_one_process_also_with_a_newcomer_and_a_killed_silo(self, jobs: PlatformJobs) -> None:
        """With frozen halves, which no checkpoint holds: whoever begins again begins at the same start."""
        spec = jobs.spec.model_copy(update={"adapter": LORA})
        early = spec.model_copy(update={"silos": spec.silos[:2]})
        first = jobs.run(early)
        jobs.assert_equal(first, jobs.in_process(early, "early"))

        later = spec.model_copy(update=LATER)
        job_id = jobs.submit(later.model_copy(update={"start_from": first}))
        killed = spec.silos[0].name
        job = jobs.follow(job_id, in_first_round=lambda: jobs.kill_job_process(killed))
        assert job["state"] == "completed", job["reason"]
        start = {"start_from": folder_of(jobs, "early")}
        jobs.assert_equal(job_id, jobs.in_process(later.model_copy(update=start), "with-newcomer"))
