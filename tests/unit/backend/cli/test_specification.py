"""The specification in a file, bare or wrapped as the API takes it."""

import json
from pathlib import Path
from typing import Any

import pytest

from backend.cli.jobs import _specification


@pytest.mark.parametrize("wrap", [lambda spec: spec, lambda spec: {"spec": spec}], ids=["bare", "wrapped"])
def test_is_the_same_bare_and_wrapped(wrap: Any, tmp_path: Path) -> None:
    spec = {"model": "tiny", "silos": []}
    path = tmp_path / "job.json"
    path.write_text(json.dumps(wrap(spec)))
    assert _specification(str(path)) == spec
