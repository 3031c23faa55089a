"""The models, rows and jobs of the integration tests, for jobs that something happens to."""

import pytest

from tests.integration.conftest import _one_quiet_thread, model, new_job

__all__ = ["_one_quiet_thread", "model", "new_job"]


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reconnect at once, and let nobody speak long after another has failed."""
    monkeypatch.setattr("splitlearn.exchange.exchange._FIRST_PAUSE_SECONDS", 0.005)
    monkeypatch.setattr("splitlearn.simulation.together._LAST_WORDS_SECONDS", 1.0)
