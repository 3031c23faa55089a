"""The base of every part of a signed document. Torch-free."""

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Base of every part of the specification: immutable, strict about names, finite about numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
