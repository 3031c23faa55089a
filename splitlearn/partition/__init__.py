"""The cut: segments of a Hugging Face decoder, loaded alone, that compose bit for bit to the whole."""

from splitlearn.partition.adapters import Adapter, AdapterError, apply_adapter
from splitlearn.partition.exporting import PartsError, export_result
from splitlearn.partition.layout import BatchLayout, PaddingSide
from splitlearn.partition.loading import SiloBlocks, load_silo_blocks, load_trunk
from splitlearn.partition.merging import merge_adapter
from splitlearn.partition.segments import (
    BottomSegment,
    Origin,
    Segment,
    TopSegment,
    TrunkSegment,
    freeze,
    load_segment_state,
    segment_state,
)
from splitlearn.partition.spread import Spread
from splitlearn.planning import Cut, CutError, ModelFilesError, ModelFolder, Role

__all__ = [
    "Adapter",
    "AdapterError",
    "BatchLayout",
    "BottomSegment",
    "Cut",
    "CutError",
    "ModelFilesError",
    "ModelFolder",
    "Origin",
    "PaddingSide",
    "PartsError",
    "Role",
    "Segment",
    "SiloBlocks",
    "Spread",
    "TopSegment",
    "TrunkSegment",
    "apply_adapter",
    "export_result",
    "freeze",
    "load_segment_state",
    "load_silo_blocks",
    "load_trunk",
    "merge_adapter",
    "segment_state",
]
