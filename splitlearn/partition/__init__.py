"""The cut: segments of a Hugging Face decoder, loaded alone, that compose bit for bit to the whole."""

from splitlearn.partition.adapters import Adapter, AdapterError, apply_adapter
from splitlearn.partition.arrays import to_array, to_tensor
from splitlearn.partition.caching import BottomDecoder, TopDecoder, TrunkDecoder, cache_bytes_by_layer
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
    result_parameters,
    segment_state,
)
from splitlearn.partition.spread import Spread
from splitlearn.partition.starting import StartError, StartingPoint, find_any_result, find_result
from splitlearn.planning import Cut, CutError, ModelFilesError, ModelFolder, Role

__all__ = [
    "Adapter",
    "AdapterError",
    "BatchLayout",
    "BottomDecoder",
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
    "StartError",
    "StartingPoint",
    "TopDecoder",
    "TopSegment",
    "TrunkDecoder",
    "TrunkSegment",
    "apply_adapter",
    "cache_bytes_by_layer",
    "export_result",
    "find_any_result",
    "find_result",
    "freeze",
    "load_segment_state",
    "load_silo_blocks",
    "load_trunk",
    "merge_adapter",
    "result_parameters",
    "segment_state",
    "to_array",
    "to_tensor",
]
