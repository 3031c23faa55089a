"""The API's numbers as Prometheus reads them."""

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from tests.unit.backend.conftest import World
from tests.unit.backend.jobs.conftest import federation as federation

TOKEN = "prometheus"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(world: World) -> Samples:
    """Read all numbers."""
    answer = world.anybody.client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 200, answer.text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    """Return one number, 0 where it was never counted."""
    return found.get((name, frozenset(labels.items())), 0.0)


@pytest.fixture
def world(world: World) -> World:
    """With a token for Prometheus."""
    settings = world.server.settings.model_copy(update={"metrics_token": SecretStr(TOKEN)})
    object.__setattr__(world.server, "settings", settings)
    return world
