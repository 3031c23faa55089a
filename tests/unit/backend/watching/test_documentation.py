"""docs/watching.md and the dashboard name what the programs tell, and nothing else."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from backend.gateway.counters import Counters
from backend.watching.standing import KEPT_SECONDS, StandingCollector
from backend.watching.watch import Watch
from client_agent.watch import AgentWatch
from splitlearn.link import CloseReason
from tests.unit.backend.conftest import ON_SQLITE_ALONE
from tests.unit.backend.jobs.conftest import Federation
from worker.watch import WorkerWatch

ROOT = Path(__file__).parents[4]
PAGE = (ROOT / "docs" / "watching.md").read_text(encoding="utf-8")
DASHBOARD: dict[str, Any] = json.loads((ROOT / "grafana" / "trunkline.json").read_text(encoding="utf-8"))
ROW = re.compile(r"^\| `(trunkline_\w+)` \| (\w+) \| (\w+) \|([^|]*)\|", flags=re.MULTILINE)

Told = dict[str, tuple[str, str, set[str]]]


def documented() -> Told:
    return {
        name: (program, kind, set(re.findall(r"`(\w+)`", labels)))
        for name, program, kind, labels in ROW.findall(PAGE)
    }


def families(program: str, text: str) -> Iterator[tuple[str, tuple[str, str, set[str]]]]:
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        if family.samples and not name.endswith("_created"):
            yield name, (program, family.type, labels)


@pytest.fixture
def told(federation: Federation, tmp_path: Path) -> Told:
    """Everything that the four programs tell, each metric at least once."""
    federation.running()
    watch = Watch()
    watch.request("GET", "/healthz", 200, 0.1)
    watch.metric_points.labels("silo").inc()
    watch.registry.register(StandingCollector(lambda: federation.world.server))
    counters = Counters()
    counters.ended(CloseReason.IDLE)
    worker = WorkerWatch(broker_url=None, broker_dir=tmp_path)
    worker.ended("failed")
    gateway = counters.to_text(connections=1, sessions=1, is_feed_answering=True)
    return {
        **dict(families("API", generate_latest(watch.registry).decode())),
        **dict(families("gateway", gateway)),
        **dict(families("worker", worker.to_text())),
        **dict(families("agent", AgentWatch().to_text())),
    }


class TestPage:
    @ON_SQLITE_ALONE
    def test_has_exactly_what_is_told(self, told: Told) -> None:
        assert documented() == told

    def test_names_how_long_the_database_s_word_is_kept(self) -> None:
        assert re.findall(r"when it is\nasked for numbers, at most every (\d+) seconds", PAGE) == [
            f"{KEPT_SECONDS:g}"
        ]


class TestDashboard:
    def expressions(self) -> list[str]:
        return [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]

    def test_uses_no_metric_that_does_not_exist(self) -> None:
        known = documented()
        series = set(known) | {
            f"{name}_{end}"
            for name, (_, kind, _) in known.items()
            if kind == "histogram"
            for end in ("bucket", "sum", "count")
        }
        used = {name for text in self.expressions() for name in re.findall(r"trunkline_\w+", text)}
        assert used <= series
        assert len(used) > 20

    def test_groups_and_filters_by_labels_that_exist(self) -> None:
        labels = set().union(*(found for _, _, found in documented().values())) | {"le", "instance"}
        for text in self.expressions():
            grouped = {
                word.strip() for words in re.findall(r"by \(([^)]*)\)", text) for word in words.split(",")
            }
            filtered = set(re.findall(r"[{,](\w+)\s*[!=]", text))
            assert grouped | filtered <= labels, text

    def test_has_panels_that_do_not_overlap(self) -> None:
        taken: set[tuple[int, int]] = set()
        for panel in DASHBOARD["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, panel["title"]
            taken |= cells
