"""How fast this worker is, as one number to compare workers by."""

from splitlearn.planning import Speed

_HIDDEN, _LAYERS, _TOKENS = 256, 2, 256
_PARAMETERS_OF_LAYER = 12 * _HIDDEN * _HIDDEN
_PASSES, _PER_PRODUCT = 3, 2  # forward, and the gradients of inputs and weights


def trunk_tokens_per_second(speed: Speed) -> float:
    """Return tokens per second of forward and backward through two layers of width 256, 256 at once."""
    flops = _PASSES * _PER_PRODUCT * _PARAMETERS_OF_LAYER * _TOKENS * _LAYERS
    return _TOKENS / (_LAYERS * speed.layer_seconds + flops / speed.flops_per_second(_HIDDEN))
