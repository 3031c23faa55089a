"""Planning: what a model weighs, by layer and segment, from its config and headers alone. No torch."""

from splitlearn.planning.choice import (
    DEFAULT_SCHEDULE,
    Candidate,
    Choice,
    Host,
    choose_schedule,
    possible_schedules,
    with_schedule,
)
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
from splitlearn.planning.prediction import (
    Prediction,
    SiloPlace,
    Surroundings,
    predict,
    silo_step_seconds,
    sum_bytes,
    sums_per_round,
    trunk_step_seconds,
)
from splitlearn.planning.sizes import (
    Size,
    layer_sizes,
    lora_parameters,
    role_of,
    segment_sizes,
    tensors_by_role,
    unknown_targets,
)
from splitlearn.planning.step_time import Cores, Line, ideal_gain
from splitlearn.planning.work import NOMINAL_SPEED, Rate, Speed

__all__ = [
    "DEFAULT_SCHEDULE",
    "INDEX_FILE",
    "MAX_DEVICES",
    "NOMINAL_SPEED",
    "Batch",
    "BlobFile",
    "Burden",
    "Candidate",
    "Choice",
    "CodecName",
    "Cores",
    "Cut",
    "CutError",
    "DeviceMemory",
    "Host",
    "LayerRange",
    "Line",
    "Memory",
    "ModelFilesError",
    "ModelFolder",
    "ModelManifest",
    "PlacementError",
    "Prediction",
    "Rate",
    "Role",
    "SiloPlace",
    "Size",
    "Speed",
    "Surroundings",
    "TensorEntry",
    "TensorFile",
    "TensorInfo",
    "Training",
    "choose_schedule",
    "estimate_memory",
    "group_by_file",
    "ideal_gain",
    "lay_trunk",
    "layer_sizes",
    "lora_parameters",
    "place_layers",
    "possible_schedules",
    "predict",
    "read_header",
    "role_of",
    "segment_sizes",
    "silo_step_seconds",
    "sum_bytes",
    "sums_per_round",
    "tensors_by_role",
    "trunk_step_seconds",
    "unknown_targets",
    "wire_bytes_per_token",
    "with_schedule",
]
