from pathlib import Path

import pytest
from pydantic import ValidationError

from worker.settings import Settings


class TestSettings:
    def test_the_broker_has_one_name_for_all_programs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TRUNKLINE_BROKER_URL", "redis://h:6379/0")
        monkeypatch.setenv("TRUNKLINE_BROKER_DIR", "/b")
        settings = Settings()
        assert settings.broker_url is not None
        assert settings.broker_url.get_secret_value() == "redis://h:6379/0"
        assert settings.broker_dir == Path("/b")

    def test_what_is_given_counts_more(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TRUNKLINE_BROKER_DIR", "/b")
        assert Settings(broker_dir=Path("/c")).broker_dir == Path("/c")

    def test_shows_no_secret(self) -> None:
        assert "hush" not in repr(Settings.model_validate({"invitation": "hush"}))

    def test_refuses_no_threads(self) -> None:
        with pytest.raises(ValidationError, match="threads"):
            Settings(threads=0)
