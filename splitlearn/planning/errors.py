"""What can be wrong with a model before any of its tensors is read."""

from splitlearn.errors import ModelError


class CutError(ModelError):
    """The cut leaves no layer for the trunk, or counts are out of range."""

    code = "model_cut"


class ModelFilesError(ModelError):
    """A file of the model folder is missing, corrupt, or in a format that is not read."""

    code = "model_files"
