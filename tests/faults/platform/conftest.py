"""One stage for each test module; a test leaves every part running."""

from collections.abc import Iterator

import pytest

from bench.stage import OwnServer, StageInputs, make_inputs
from tests.faults.platform.stage import own_servers


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[OwnServer, OwnServer]]:
    """Database and broker."""
    with own_servers() as started:
        yield started


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> StageInputs:
    """Model and rows of two silos."""
    return make_inputs(tmp_path_factory.mktemp("inputs"))
