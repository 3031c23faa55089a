"""What is planned for the caches of texts that are generated is what the library keeps, family by family."""

from collections.abc import Callable

import pytest
import torch

from splitlearn.partition import cache_bytes_by_layer, load_trunk
from splitlearn.planning import ModelFolder
from splitlearn.planning.caches import cache_bytes_per_token
from tests.unit.partition.conftest import VARIANTS


@pytest.mark.parametrize("variant", VARIANTS)
def test_bytes_per_token(variant: str, folder_of: Callable[[str], ModelFolder]) -> None:
    folder = folder_of(variant)
    trunk = load_trunk(folder, folder.cut(bottom_layers=1, top_layers=1)).eval()
    with torch.no_grad():
        found, _ = cache_bytes_by_layer(trunk)
    assert set(found) == {cache_bytes_per_token(folder)}
