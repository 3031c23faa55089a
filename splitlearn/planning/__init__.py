"""Planning: what a model weighs, by layer and segment, from its config and headers alone. No torch."""

from splitlearn.planning.cut import Cut, Role
from splitlearn.planning.errors import CutError, ModelFilesError
from splitlearn.planning.estimates import CodecName, Memory, estimate_memory, wire_bytes_per_token
from splitlearn.planning.folder import INDEX_FILE, ModelFolder
from splitlearn.planning.headers import TensorInfo, read_header
from splitlearn.planning.manifest import (
    BlobFile,
    ModelManifest,
    TensorEntry,
    TensorFile,
    group_by_file,
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
    "BlobFile",
    "CodecName",
    "Cut",
    "CutError",
    "Memory",
    "ModelFilesError",
    "ModelFolder",
    "ModelManifest",
    "Role",
    "Size",
    "TensorEntry",
    "TensorFile",
    "TensorInfo",
    "estimate_memory",
    "group_by_file",
    "layer_sizes",
    "lora_parameters",
    "read_header",
    "role_of",
    "segment_sizes",
    "tensors_by_role",
    "wire_bytes_per_token",
]
