"""What can be wrong with a model before any of its tensors is read."""

from splitlearn.errors import ModelError


class CutError(ModelError):
    """The cut leaves no layer for the trunk, or counts are out of range."""

    code = "model_cut"


class PlacementError(ModelError):
    """The trunk's layers do not fit on the devices.

    Args:
        message: Says which, and by how much.
        num_fitting: Layers that would fit, counted from the first.
        missing_bytes: What the others need.
    """

    code = "model_placement"

    def __init__(self, message: str, *, num_fitting: int, missing_bytes: int) -> None:
        super().__init__(message)
        self.num_fitting, self.missing_bytes = num_fitting, missing_bytes


class ModelFilesError(ModelError):
    """A file of the model folder is missing, corrupt, or in a format that is not read."""

    code = "model_files"
