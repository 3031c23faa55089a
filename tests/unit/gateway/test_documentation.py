"""docs/gateway.md says what the code does."""

import re
from pathlib import Path

import pytest

from backend.gateway import GatewaySettings
from splitlearn.link import CloseReason

PAGE = (Path(__file__).parents[3] / "docs" / "gateway.md").read_text(encoding="utf-8")


class TestPage:
    @pytest.mark.parametrize("reason", list(CloseReason))
    def test_has_every_close_reason(self, reason: CloseReason) -> None:
        again = "no" if reason.is_final else "yes"
        assert f"| {reason.value} | `{reason.word}` | {again} | {reason.remedy} |" in PAGE

    def test_has_no_other_close_reason(self) -> None:
        codes = re.findall(r"^\| (\d{4}) \| `", PAGE, flags=re.MULTILINE)
        assert [int(code) for code in codes] == [reason.value for reason in CloseReason]

    @pytest.mark.parametrize("name", list(GatewaySettings.model_fields))
    def test_has_every_setting_and_its_default(self, name: str) -> None:
        default = GatewaySettings.model_fields[name].default
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))
        if isinstance(default, int | float):
            assert f"| {default:g} |" in row or f"| {default} |" in row
