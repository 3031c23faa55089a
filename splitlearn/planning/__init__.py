"""Planning: what a model weighs, by layer and segment, from its config and headers alone. No torch."""

from splitlearn.planning.cut import Cut, Role
from splitlearn.planning.errors import CutError, ModelFilesError
from splitlearn.planning.folder import ModelFolder
from splitlearn.planning.headers import TensorInfo, read_header

__all__ = ["Cut", "CutError", "ModelFilesError", "ModelFolder", "Role", "TensorInfo", "read_header"]
