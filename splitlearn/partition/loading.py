"""Loads one party's segments, and nothing else."""

from dataclasses import dataclass

import torch
from torch import nn

from splitlearn.partition.adapters import Adapter, apply_adapter, linear_modules
from splitlearn.partition.reading import TensorReader, fill
from splitlearn.partition.segments import BottomSegment, Origin, Segment, TopSegment, TrunkSegment
from splitlearn.partition.skeleton import build_skeleton, cut_skeleton
from splitlearn.partition.spread import Moves, Spread
from splitlearn.planning import Cut, CutError, ModelFolder, Role

_CLASSES: dict[Role, type[Segment]] = {
    Role.BOTTOM: BottomSegment,
    Role.TRUNK: TrunkSegment,
    Role.TOP: TopSegment,
}


@dataclass(frozen=True)
class SiloBlocks:
    """What a silo holds. A tied embedding is one parameter, shared by both.

    Attributes:
        bottom: Embedding and first layers.
        top: Last layers, final norm, head.
    """

    bottom: BottomSegment
    top: TopSegment

    @property
    def bytes_read(self) -> int:
        """Bytes of tensors read from disk to load both."""
        return self.bottom.bytes_read + self.top.bytes_read


def load_silo_blocks(
    folder: ModelFolder,
    cut: Cut,
    *,
    adapter: Adapter | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> SiloBlocks:
    """Load what a silo holds, in evaluation mode.

    Args:
        folder: The model.
        cut: Where it is cut.
        adapter: What to train; None leaves every parameter as loaded.
        seed: Of the adapter's initial weights.
        dtype: Type of the parameters in memory.
        device: Where they go.

    Raises:
        ModelError: The files, the cut or the adapter do not fit the model.
    """
    bottom = _load(folder, cut, Role.BOTTOM, dtype=dtype, device=device, shared={})
    shared: dict[str, nn.Parameter] = {}
    if folder.ties_embeddings:
        shared[folder.family.embedding_weight] = bottom.base.get_input_embeddings().weight
    top = _load(folder, cut, Role.TOP, dtype=dtype, device=device, shared=shared)
    assert isinstance(bottom, BottomSegment)
    assert isinstance(top, TopSegment)
    if adapter is not None:
        apply_adapter(bottom, adapter, seed=seed)
        apply_adapter(top, adapter, seed=seed)
    return SiloBlocks(bottom, top)


def load_trunk(
    folder: ModelFolder,
    cut: Cut,
    *,
    adapter: Adapter | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | Spread = "cpu",
) -> TrunkSegment:
    """Load what the worker holds, in evaluation mode. Arguments and errors as of :func:`load_silo_blocks`.

    ``device`` may also be several, each with a range of the trunk's layers.
    """
    trunk = _load(folder, cut, Role.TRUNK, dtype=dtype, device=device, shared={})
    assert isinstance(trunk, TrunkSegment)
    if adapter is not None:
        apply_adapter(trunk, adapter, seed=seed)
    return trunk


def _load(
    folder: ModelFolder,
    cut: Cut,
    role: Role,
    *,
    dtype: torch.dtype,
    device: torch.device | str | Spread,
    shared: dict[str, nn.Parameter],
) -> Segment:
    if cut.num_layers != folder.num_layers:
        raise CutError(
            f"the cut is of a model with {cut.num_layers} layers, but {folder.path} has {folder.num_layers}; "
            f"cut it anew"
        )
    model = build_skeleton(folder, dtype=dtype)
    linear = linear_modules(model)
    vocab_size = model.config.vocab_size
    cut_skeleton(model, family=folder.family, cut=cut, role=role)
    spread = device if isinstance(device, Spread) else Spread.on(device)
    with TensorReader(folder) as reader:
        fill(model, reader, dtype=dtype, spread=spread, shared=shared)
    if len(spread.ranges) > 1:
        Moves(spread).attach(model, family=folder.family)
    origin = Origin(
        family=folder.family,
        cut=cut,
        role=role,
        hidden_size=folder.hidden_size,
        vocab_size=vocab_size,
        ties_embeddings=folder.ties_embeddings,
        linear_modules=linear,
        bytes_read=reader.bytes_read,
        tensors_read=tuple(reader.tensors_read),
    )
    return _CLASSES[role](model, origin).eval()
