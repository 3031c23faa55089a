"""Planning: what a model weighs, by layer and segment, from its config and headers alone. No torch."""

from splitlearn.planning.cut import Cut, Role
from splitlearn.planning.errors import CutError, ModelFilesError, PlacementError
from splitlearn.planning.estimates import (
    Batch,
    CodecName,
    Memory,
    Training,
    estimate_memory,
    lay_trunk,
    wire_bytes_per_token,
)
from splitlearn.planning.folder import INDEX_FILE, ModelFolder
from splitlearn.planning.headers import TensorInfo, read_header
from splitlearn.planning.manifest import (
    BlobFile,
    ModelManifest,
    TensorEntry,
    TensorFile,
    group_by_file,
)
from splitlearn.planning.placement import (
    MAX_DEVICES,
    Burden,
    DeviceMemory,
    LayerRange,
    place_layers,
)
from splitlearn.planning.sizes import (
    Size,
    layer_sizes,
    lora_parameters,
    role_of,
    segment_sizes,
    tensors_by_role,
)

__all__ = [
    "INDEX_FILE",
    "MAX_DEVICES",
    "Batch",
    "BlobFile",
    "Burden",
    "CodecName",
    "Cut",
    "CutError",
    "DeviceMemory",
    "LayerRange",
    "Memory",
    "ModelFilesError",
    "ModelFolder",
    "ModelManifest",
    "PlacementError",
    "Role",
    "Size",
    "TensorEntry",
    "TensorFile",
    "TensorInfo",
    "Training",
    "estimate_memory",
    "group_by_file",
    "lay_trunk",
    "layer_sizes",
    "lora_parameters",
    "place_layers",
    "read_header",
    "role_of",
    "segment_sizes",
    "tensors_by_role",
    "wire_bytes_per_token",
]
