"""Fixtures that every test folder may use."""

import os
from pathlib import Path

import pytest
import torch

# One thread: results are compared bit for bit, and several test runs may share the cores.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of public data sets and models.

    Skips where it is absent, unless ``TRUNKLINE_REQUIRE_TEST_DATA=1`` says that it must not be.
    """
    folder = Path(os.environ.get("TRUNKLINE_TEST_DATA", "../shared"))  # noqa: TID251 - the tests' one setting
    if not (folder / "models").is_dir():
        message = f"no public test data at {folder}; set TRUNKLINE_TEST_DATA to its folder"
        if os.environ.get("TRUNKLINE_REQUIRE_TEST_DATA") == "1":  # noqa: TID251 - see above
            pytest.fail(message)
        pytest.skip(message)
    return folder.resolve()
