"""Memory for time: a layer's forward computed again in its backward (arXiv 1604.06174)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.checkpoint import checkpoint

from splitlearn.partition import Segment
from splitlearn.partition.skeleton import BUILD_LOCK
from splitlearn.training.seeding import has_active_dropout


class Recomputing:
    """Decides for one segment, in training mode, whether its layers are computed again.

    The second forward draws the masks of the first: torch puts its generators back to where they were. So
    nothing changes by a bit.

    Args:
        segment: The segment; layers of an earlier job on it are put right, too.
        wanted: Whether the job asks for it.

    Raises:
        UnservedError: The family's layers cannot be computed again.
    """

    def __init__(self, segment: Segment, *, wanted: bool) -> None:
        self._draws = wanted and has_active_dropout(segment)
        segment.recompute_layers(_again(draws=self._draws) if wanted else None)

    @contextmanager
    def backward(self) -> Iterator[None]:
        """Hold torch's generators, which belong to the process, for the time of a backward that draws."""
        if not self._draws:
            yield
            return
        with BUILD_LOCK:
            yield


def _again(*, draws: bool) -> Callable[..., Any]:
    def compute(function: Callable[..., Any], *inputs: Any) -> Any:
        return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=draws)

    return compute
