"""A trunk laid over two devices computes what it computes on one.

Two kinds of a second device are there on every machine. ``meta`` holds no values, and refuses to compute with
a tensor of another device: a forward that comes out there shows that everything a layer is given was moved.
``cpu:1`` names the processor's memory, too, but is another device to whoever asks for a move: every move is
made, as a copy that autograd takes back the same way.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from splitlearn.partition import BatchLayout, Spread, TrunkSegment, load_trunk
from splitlearn.partition.spread import Moves
from splitlearn.planning import ModelFolder
from splitlearn.spec import LoraAdapter
from tests.unit.partition.test_composition import LAYOUTS, VARIANTS

FolderOf = Callable[[str], ModelFolder]
CPU, OTHER, META = torch.device("cpu"), torch.device("cpu", 1), torch.device("meta")
LAYERS = range(1, 4)
BOTH = Spread(((range(1, 2), CPU), (range(2, 4), OTHER)))
HALF_META = Spread(((range(1, 2), CPU), (range(2, 4), META)))
# Which expert takes which row is known from values alone, and meta has none; what its layers are given is
# what those of qwen3 are given.
WITHOUT_VALUES = [name for name in VARIANTS if name != "qwen3_moe"]
NUM_CUDA = torch.cuda.device_count()
NO_CUDA = "this machine has no CUDA device: the move to a real one is not seen here"
ONE_CUDA = f"this machine has {NUM_CUDA} CUDA devices: the move between two real ones is not seen here"


def trunk_of(folder: ModelFolder, device: torch.device | Spread = CPU, *, lora: bool = False) -> TrunkSegment:
    cut = folder.cut(bottom_layers=1, top_layers=1)
    return load_trunk(folder, cut, adapter=LoraAdapter() if lora else None, seed=3, device=device)


def activations(layout: BatchLayout) -> Tensor:
    generator = torch.Generator().manual_seed(9)
    return layout.unpack(torch.randn(layout.num_valid, 32, generator=generator))


def both_ways(trunk: TrunkSegment, layout: BatchLayout) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the hidden states, and every gradient, the input's too, on the processor."""
    device = next(trunk.parameters()).device
    hidden_BTD = activations(layout).to(device).requires_grad_()
    output_BTD = trunk(hidden_BTD, layout)
    torch.autograd.backward(output_BTD[layout.valid(output_BTD.device)].square().sum())
    grads = {name: p.grad.cpu() for name, p in trunk.named_parameters() if p.grad is not None}
    assert hidden_BTD.grad is not None
    return output_BTD.detach().cpu(), {**grads, "input": hidden_BTD.grad.cpu()}


def assert_same(found: tuple[Tensor, dict[str, Tensor]], expected: tuple[Tensor, dict[str, Tensor]]) -> None:
    assert torch.equal(found[0], expected[0])
    assert found[1].keys() == expected[1].keys()
    different = [name for name in found[1] if not torch.equal(found[1][name], expected[1][name])]
    assert not different


class TestLoadTrunk:
    @pytest.mark.parametrize("variant", ["llama", "gpt2", "falcon-alibi", "gemma3_text"])
    def test_puts_every_tensor_where_its_layer_lies(self, variant: str, folder_of: FolderOf) -> None:
        folder = folder_of(variant)
        trunk = trunk_of(folder, HALF_META)
        tensors = [*trunk.core.named_parameters(), *trunk.core.named_buffers()]
        for name, tensor in tensors:
            layer = folder.family.layer_of(name)
            assert tensor.device == (CPU if layer in {None, 1} else META), name

    def test_has_an_adapters_tensors_where_they_are_used(self, folder_of: FolderOf) -> None:
        trunk = trunk_of(folder_of("llama"), lora=True)
        over_two = trunk_of(folder_of("llama"), HALF_META, lora=True)
        names = [name for name, _ in over_two.trainable]
        assert names == [name for name, _ in trunk.trainable]
        assert {tensor.device for name, tensor in over_two.trainable if ".1." in name} == {CPU}
        assert {tensor.device for name, tensor in over_two.trainable if ".3." in name} == {META}


class TestForward:
    @pytest.mark.parametrize("variant", WITHOUT_VALUES)
    def test_moves_all_that_a_layer_is_given(self, variant: str, folder_of: FolderOf) -> None:
        trunk = trunk_of(folder_of(variant), HALF_META)
        for layout in LAYOUTS:
            hidden_BTD = trunk(activations(layout), layout)
            assert hidden_BTD.device == META
            assert hidden_BTD.shape == (layout.num_rows, layout.width, 32)

    def test_of_no_rows_is_empty(self, folder_of: FolderOf) -> None:
        trunk = trunk_of(folder_of("llama"), BOTH)
        assert trunk(torch.zeros(0, 6, 32), BatchLayout((), width=6)).shape == (0, 6, 32)


class TestBothWays:
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_are_those_of_one_device_bit_for_bit(self, variant: str, folder_of: FolderOf) -> None:
        folder = folder_of(variant)
        one, two = trunk_of(folder), trunk_of(folder, BOTH)
        for layout in LAYOUTS:
            for trunk in (one, two):
                trunk.zero_grad()
            assert_same(both_ways(two, layout), both_ways(one, layout))

    def test_with_an_adapter_too(self, folder_of: FolderOf) -> None:
        folder = folder_of("llama")
        one, two = trunk_of(folder, lora=True), trunk_of(folder, BOTH, lora=True)
        assert_same(both_ways(two, LAYOUTS[0]), both_ways(one, LAYOUTS[0]))

    @pytest.mark.skipif(NUM_CUDA < 1, reason=NO_CUDA)
    def test_over_processor_and_cuda(self, folder_of: FolderOf) -> None:
        folder = folder_of("llama")
        spread = Spread.of([(range(1, 2), "cpu"), (range(2, 4), "cuda:0")])
        found, expected = (
            both_ways(trunk_of(folder, spread), LAYOUTS[0]),
            both_ways(trunk_of(folder), LAYOUTS[0]),
        )
        # Products of 32 terms in another order; TF32 is off by default for products.
        torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=1e-5)
        for name, gradient in found[1].items():
            torch.testing.assert_close(gradient, expected[1][name], rtol=1e-3, atol=1e-4)

    @pytest.mark.skipif(NUM_CUDA < 2, reason=ONE_CUDA)
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_over_two_cuda_devices_are_those_of_one(self, variant: str, folder_of: FolderOf) -> None:
        folder = folder_of(variant)
        spread = Spread.of([(range(1, 2), "cuda:0"), (range(2, 4), "cuda:1")])
        one = trunk_of(folder, torch.device("cuda", 0))
        assert_same(both_ways(trunk_of(folder, spread), LAYOUTS[0]), both_ways(one, LAYOUTS[0]))


class TestMoves:
    def test_what_layers_share_is_moved_once_per_device(self, folder_of: FolderOf) -> None:
        moved: list[tuple[int, ...]] = []

        def move(tensor: Tensor, device: torch.device) -> Tensor:
            moved.append(tuple(tensor.shape))
            return tensor.to(device)

        trunk = trunk_of(folder_of("llama"))
        Moves(HALF_META, move).attach(trunk.base.to("cpu"), family=folder_of("llama").family)
        for number in (2, 3):
            trunk.base.get_submodule(f"model.layers.{number}").to(META)
        layout = LAYOUTS[0]
        for _ in range(2):
            moved.clear()
            trunk(activations(layout), layout)
            # The hidden states once, at the border; mask, positions, and the two rotary tables once.
            assert moved.count((3, 12, 32)) == 1
            assert len(moved) == len(set(moved)) + 1 <= 5

    def test_keep_nothing_after_a_forward_that_failed(self, folder_of: FolderOf) -> None:
        trunk = trunk_of(folder_of("llama"))
        moves = Moves(HALF_META)
        moves.attach(trunk.base, family=folder_of("llama").family)
        with pytest.raises(RuntimeError, match="meta"):  # the layers themselves were not moved
            trunk(activations(LAYOUTS[0]), LAYOUTS[0])
        assert not moves._shared


class TestSpread:
    def test_knows_entrance_and_devices(self) -> None:
        assert (BOTH.entrance, BOTH.devices) == (CPU, (CPU, OTHER))
        assert Spread.on("meta").device_of(7) == META
        assert [BOTH.device_of(layer) for layer in (None, *LAYERS)] == [CPU, CPU, OTHER, OTHER]
