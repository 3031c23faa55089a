"""How much a model is made to read and write at once, by its own configuration."""

from collections.abc import Sequence

from splitlearn.generation.errors import PromptError
from splitlearn.partition import SiloBlocks


def context_tokens(blocks: SiloBlocks) -> int | None:
    """Return the ``max_position_embeddings`` of the model's configuration; None where it has none.

    It bounds prompt and answer together, also of models with a window and of rotary positions that were
    stretched: past it no model was trained, though most would go on with text that means little.
    """
    limit = getattr(blocks.bottom.base.config, "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else None


def refuse_beyond_context(
    prompts: Sequence[Sequence[int]], *, max_new_tokens: int, context: int | None
) -> None:
    """Refuse prompts that do not fit the model's context together with their answers.

    Args:
        prompts: Token ids of each.
        max_new_tokens: Longest answer.
        context: Of :func:`context_tokens`; None refuses nothing.

    Raises:
        PromptError: Names the first such prompt by its place, and never quotes it.
    """
    if context is None:
        return
    for index, prompt in enumerate(prompts):
        if len(prompt) + max_new_tokens > context:
            raise PromptError(
                f"prompt {index + 1} has {len(prompt)} tokens, with max_new_tokens {max_new_tokens} it comes "
                f"to {len(prompt) + max_new_tokens}; the model's context is {context} tokens "
                "(max_position_embeddings); shorten the prompt or lower max_new_tokens"
            )
