"""What can go wrong before or while tokens are generated."""

from splitlearn.errors import DataError, ProtocolError, SpecError


class GenerationOptionsError(SpecError):
    """An option of a generation is out of range."""

    code = "generation_options"


class PromptError(DataError):
    """A prompt is empty, or longer than the model takes."""

    code = "prompt"
    public = "a prompt was refused"


class CacheRefusedError(ProtocolError):
    """The trunk does not keep a cache as large as was asked for; ask for less at once."""

    code = "cache_refused"
    public = "a cache would exceed the trunk's limit"
