"""Fixtures that every test folder may use."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of public data sets and models, or a skip that says how to point at it."""
    folder = Path(os.environ.get("TRUNKLINE_TEST_DATA", "../shared"))  # noqa: TID251 - tests' one setting
    if not (folder / "models").is_dir():
        pytest.skip(f"no public test data at {folder}; set TRUNKLINE_TEST_DATA to its folder")
    return folder.resolve()
