"""What the model registry refuses."""

from backend.errors import ConflictError, InvalidRequestError, NotFoundError


class ModelNameTakenError(ConflictError):
    """The project has a model of this name."""

    code = "name_taken"
    remedy = "choose another name, or remove the model first"


class SourceRefusedError(InvalidRequestError):
    """The source is no hub id, and no folder that may be registered."""

    code = "source_refused"
    remedy = (
        "give hub:OWNER/NAME, or folder:PATH below a folder of TRUNKLINE_MODEL_SOURCES "
        "(trunkline up --models-from FOLDER)"
    )


class ModelInUseError(ConflictError):
    """A job that has not ended needs the model."""

    code = "model_in_use"
    remedy = "wait for the job's end, or cancel it"


class UnknownModelError(NotFoundError):
    """No such model, or it is another organisation's."""
