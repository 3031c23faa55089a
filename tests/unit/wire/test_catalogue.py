from pathlib import Path

import pytest

from splitlearn.wire import CLOSED_LIST
from splitlearn.wire.catalogue import catalogue

PAGE = Path(__file__).parents[3] / "docs" / "what-leaves.md"


class TestCatalogue:
    def test_is_the_committed_page(self) -> None:
        assert PAGE.read_text(encoding="utf-8") == catalogue(), (
            "run: python -m splitlearn.wire.catalogue > docs/what-leaves.md"
        )

    @pytest.mark.parametrize("listed", CLOSED_LIST, ids=lambda listed: listed.cls.__name__)
    def test_shows_every_field(self, listed: object) -> None:
        section = catalogue().split(f"### {listed.cls.__name__} ({listed.number})\n")[1].split("\n#")[0]  # type: ignore[attr-defined]
        shown = [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")]
        assert shown == list(listed.fields)  # type: ignore[attr-defined]
