"""What a job that generates keeps of the texts under way: keys and values, by segment."""

from splitlearn.evaluation_spec import MAX_CACHE_BYTES, MAX_GENERATED_AT_ONCE
from splitlearn.planning.activations import Widths, count_of
from splitlearn.planning.folder import ModelFolder
from splitlearn.spec import JobSpec, SummariseTask

_FLOAT32_BYTES = 4
_KEYS = ("num_key_value_heads",)


def cache_bytes_per_token(folder: ModelFolder) -> int:
    """Return what one token of one row takes of one layer's cache, in bytes.

    fp32, also of jobs in half precision: keys that are turned by their positions stay so. A layer with a
    window keeps no more columns than that; it is counted as if it had none.
    """
    config = folder.config
    widths = Widths.of(folder)
    heads = count_of(config, _KEYS) or widths.heads
    if folder.family.model_type == "falcon":
        # It keeps one head for all, or repeats each of a few for those that share it.
        is_shared = config.get("multi_query", True) and not config.get("new_decoder_architecture")
        heads = 1 if is_shared else widths.heads
    return 2 * heads * (widths.attention // widths.heads) * _FLOAT32_BYTES


def cached_tokens(spec: JobSpec) -> int:
    """Return the cells of the largest batch that a job generates at its evaluations; 0 where it does not.

    A prompt and the answer that is wanted have ``max_tokens`` together; what is generated may be as long as
    the longest one that is wanted, after the longest prompt.
    """
    if not (isinstance(spec.task, SummariseTask) and spec.task.metrics):
        return 0
    rows = min(spec.evaluation.batch_size, spec.evaluation.max_rows, MAX_GENERATED_AT_ONCE)
    return rows * 2 * (spec.max_tokens - 1)


def cache_bytes(folder: ModelFolder, *, num_tokens: int, num_layers: int, is_trunk: bool) -> int:
    """Return what caches of so many cells take of some layers, while a column is added to one of them.

    Args:
        folder: The model.
        num_tokens: Rows x columns.
        num_layers: Of the segment.
        is_trunk: Whether they lie at the trunk, which keeps no more than its limit.
    """
    if not (num_tokens and num_layers):
        return 0
    per_layer = num_tokens * cache_bytes_per_token(folder)
    kept = per_layer * num_layers
    return (min(kept, MAX_CACHE_BYTES) if is_trunk else kept) + per_layer
