"""The agent's own numbers, read as Prometheus reads them."""

from prometheus_client.parser import text_string_to_metric_families

from client_agent.watch import AgentWatch
from splitlearn.control_plane.requests import Absent, Back


def read(watch: AgentWatch) -> dict[str, float]:
    return {
        "".join([sample.name, *(f" {value}" for value in sample.labels.values())]): sample.value
        for family in text_string_to_metric_families(watch.to_text())
        for sample in family.samples
    }


class TestAgentWatch:
    def test_counts_jobs_by_phase_and_forgets_the_dropped(self) -> None:
        watch = AgentWatch()
        watch.phase("a", "preparing")
        watch.phase("a", "training")
        watch.phase("b", "training")
        watch.dropped("b")
        found = read(watch)
        assert found["trunkline_agent_jobs training"] == 1
        assert found["trunkline_agent_jobs preparing"] == 0

    def test_counts_processes_and_their_deaths(self) -> None:
        watch = AgentWatch()
        watch.process_began()
        watch.process_died()
        watch.process_began()
        found = read(watch)
        assert found["trunkline_agent_process_starts_total"] == 2
        assert found["trunkline_agent_process_deaths_total"] == 1

    def test_is_ready_while_the_control_plane_answers(self) -> None:
        watch = AgentWatch()
        assert watch.not_ready() == ["control plane: not logged in yet"]
        watch.reach.logged_in()
        assert watch.not_ready() == []
        watch.reach.change(Absent("no answer", 1.0))
        assert watch.not_ready() == ["control plane: no answer"]
        assert read(watch)["trunkline_agent_control_plane_reachable"] == 0
        watch.reach.change(Back(1.0))
        assert read(watch)["trunkline_agent_control_plane_reachable"] == 1
