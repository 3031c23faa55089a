"""What is said of refused settings: name, value, limit and remedy, and no secret."""

from typing import Literal, Self

import pytest
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from splitlearn.setting_errors import setting_sentences

HIDDEN = "s3cret"
REMEDY = "correct it, or leave it unset for its default"


class Example(BaseSettings):
    """One of each kind."""

    model_config = SettingsConfigDict(env_prefix="TRUNKLINE_EXAMPLE_", extra="ignore")

    port: int = Field(default=1, le=65535)
    key_id: int = 0
    store: SecretStr | None = Field(default=None, max_length=3)
    shared_url: SecretStr | None = Field(default=None, max_length=3, validation_alias="TRUNKLINE_SHARED_URL")
    address: str = ""
    state: Literal["open", "shut"] = "open"
    low: int = 0
    high: int = 9

    @field_validator("address")
    @classmethod
    def _is_address(cls, value: str) -> str:
        if value and not value.startswith("ws://"):
            raise ValueError(f"{value.partition(',')[0]!r} is not ws://host")
        return value

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError("low is above high")
        return self


def said(monkeypatch: pytest.MonkeyPatch, **environment: str) -> list[str]:
    for name, value in environment.items():
        monkeypatch.setenv(f"TRUNKLINE_{name}", value)
    with pytest.raises(ValidationError) as refused:
        Example()
    return setting_sentences(refused.value, Example)


class TestSentences:
    def test_name_value_limit_and_remedy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert said(monkeypatch, EXAMPLE_PORT="99999", EXAMPLE_STATE="on") == [
            f"TRUNKLINE_EXAMPLE_PORT=99999: must be less than or equal to 65535; {REMEDY}",
            f"TRUNKLINE_EXAMPLE_STATE=on: must be 'open' or 'shut'; {REMEDY}",
        ]

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("EXAMPLE_KEY_ID", HIDDEN),
            ("EXAMPLE_STORE", HIDDEN),
            ("SHARED_URL", HIDDEN),
            ("EXAMPLE_ADDRESS", f"http://me:{HIDDEN}@host"),
            ("EXAMPLE_ADDRESS", f"http://me:{HIDDEN}@host,ws://other"),
        ],
    )
    def test_show_no_secret(self, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
        (sentence,) = said(monkeypatch, **{name: value})
        assert sentence.startswith(f"TRUNKLINE_{name}: ")
        assert HIDDEN not in sentence

    def test_show_an_address_that_holds_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        (sentence,) = said(monkeypatch, EXAMPLE_ADDRESS="http://host")
        assert sentence.startswith("TRUNKLINE_EXAMPLE_ADDRESS=http://host: 'http://host' is not ws://host; ")

    def test_of_several_together_name_no_single_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert said(monkeypatch, EXAMPLE_LOW="10") == [
            "low is above high; correct the settings TRUNKLINE_EXAMPLE_..."
        ]

    def test_show_no_value_of_settings_that_are_not_known(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Other(BaseSettings):
            port: int = 0

        monkeypatch.setenv("PORT", "many")
        with pytest.raises(ValidationError) as refused:
            Other()
        (sentence,) = setting_sentences(refused.value, Example)
        assert "many" not in sentence


class TestMissing:
    def test_is_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Needy(BaseSettings):
            model_config = SettingsConfigDict(env_prefix="TRUNKLINE_NEEDY_")
            name: str

        monkeypatch.delenv("TRUNKLINE_NEEDY_NAME", raising=False)
        with pytest.raises(ValidationError) as refused:
            Needy()
        assert setting_sentences(refused.value, Needy) == ["TRUNKLINE_NEEDY_NAME is not set; set it"]
