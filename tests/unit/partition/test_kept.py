"""What the planner says that layers keep for their backward is what autograd keeps of them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from splitlearn.partition import BatchLayout, load_trunk
from splitlearn.planning import ModelFolder
from splitlearn.planning.activations import kept_by_layer
from splitlearn.spec import FullAdapter, LoraAdapter
from tests.unit.partition.test_composition import VARIANTS

FolderOf = Callable[[str], ModelFolder]
ADAPTERS: dict[str, FullAdapter | LoraAdapter] = {"full": FullAdapter(), "lora": LoraAdapter(r=1)}
LAYOUT = BatchLayout((48, 48, 41), "right")
CELLS = LAYOUT.num_rows * LAYOUT.width
# Beside the multiples of widths a layer keeps a number or two per row, head or rank, and all share one mask:
# of these models, which are 32 wide, that is more than of larger ones.
TOLERANCE = 0.12


def kept_by_autograd(folder: ModelFolder, adapter: FullAdapter | LoraAdapter) -> float:
    """Return the bytes that are kept of one layer of three; parameters, which are there anyway, left out."""
    cut = folder.cut(bottom_layers=1, top_layers=1)
    trunk = load_trunk(folder, cut, adapter=adapter)
    parameters = {parameter.untyped_storage().data_ptr() for parameter in trunk.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in parameters:
            kept[address] = tensor
        return tensor

    hidden_BTD = torch.randn(LAYOUT.num_rows, LAYOUT.width, folder.hidden_size).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(keep, _same):
        trunk(hidden_BTD, LAYOUT)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / 3


def _same(tensor: Any) -> Any:
    return tensor


class TestKeptByLayer:
    @pytest.mark.parametrize("adapter", ADAPTERS)
    @pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "falcon-alibi"])
    def test_is_what_autograd_keeps(self, variant: str, adapter: str, folder_of: FolderOf) -> None:
        folder, how = folder_of(variant), ADAPTERS[adapter]
        said = kept_by_layer(folder, how, cells=CELLS, row_cells=LAYOUT.width, element_bytes=4)
        assert said == pytest.approx(kept_by_autograd(folder, how), rel=TOLERANCE)

    @pytest.mark.parametrize("adapter", ADAPTERS)
    def test_of_falcon_with_alibi_is_an_upper_bound(self, adapter: str, folder_of: FolderOf) -> None:
        # The family's numbers are those of its rotary variant, which keeps more.
        folder, how = folder_of("falcon-alibi"), ADAPTERS[adapter]
        said = kept_by_layer(folder, how, cells=CELLS, row_cells=LAYOUT.width, element_bytes=4)
        assert kept_by_autograd(folder, how) <= said <= 1.25 * kept_by_autograd(folder, how)

    def test_on_other_modules_than_the_familys_is_an_upper_bound(self, folder_of: FolderOf) -> None:
        folder, how = folder_of("llama"), LoraAdapter(r=1, targets=("o_proj", "down_proj"))
        said = kept_by_layer(folder, how, cells=CELLS, row_cells=LAYOUT.width, element_bytes=4)
        assert 0.9 * kept_by_autograd(folder, how) <= said <= 1.5 * kept_by_autograd(folder, how)
