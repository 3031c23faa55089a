"""The trunk's caches of all batches under way, within a limit. No I/O.

A cache is admitted whole or refused: what it may come to is set aside when it is begun, so that no batch
that was admitted ends for want of room.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields

from splitlearn.errors import LocalProtocolError
from splitlearn.evaluation_spec import MAX_CACHE_BYTES, MAX_GENERATED_AT_ONCE
from splitlearn.partition import TrunkDecoder, TrunkSegment, cache_bytes_by_layer, to_array, to_tensor
from splitlearn.training.evaluation import evaluating
from splitlearn.training.precision import Precision, computing_in
from splitlearn.wire import CachedHidden, CacheLimit, CacheRefused, Decode, Prefill


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheLimits:
    """What a trunk keeps for all silos together, and computes at once.

    Attributes:
        max_bytes: Keys and values of all caches. While a column is added, the library holds those of one
            layer twice.
        max_rows: Rows of one batch.
        max_length: Tokens of one row, prompt and answer. A prompt's attention mask grows with its square.
    """

    max_bytes: int = MAX_CACHE_BYTES
    max_rows: int = MAX_GENERATED_AT_ONCE
    max_length: int = 8192

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 1:
                raise LocalProtocolError(f"{field.name} is {getattr(self, field.name)}; choose 1 or more")


@dataclass(frozen=True, slots=True)
class _Kept:
    decoder: TrunkDecoder
    num_bytes: int


class TrunkCaches:
    """Answers prefills and new tokens of any number of silos. Not safe to call from several threads at once.

    Args:
        segment: The trunk.
        limits: What is kept at most.
        precision: Of the job: what is computed, and kept, is what its evaluation computes.
    """

    def __init__(self, segment: TrunkSegment, *, limits: CacheLimits, precision: Precision = "fp32") -> None:
        self._segment, self._limits, self._precision = segment, limits, precision
        self._device = next(segment.parameters()).device
        with self._computing():
            self._bytes_by_layer, self._windows = cache_bytes_by_layer(segment)
        self._kept: dict[tuple[str, int], _Kept] = {}

    @property
    def num_bytes(self) -> int:
        """Bytes set aside for what is under way."""
        return sum(kept.num_bytes for kept in self._kept.values())

    def answer(self, silo: str, message: Prefill | Decode) -> CachedHidden | CacheRefused:
        """Compute a silo's prompts or new tokens.

        Args:
            silo: Who asks; silos number their caches for themselves.
            message: What is asked; the conversation has checked its order, rows and positions.

        Raises:
            ProtocolError: The tensor's shape is not what the message says: the silo's fault.
        """
        if isinstance(message, Prefill):
            return self._refusal(message) or self._begin(silo, message)
        decoder = self._kept[silo, message.cache].decoder
        with self._computing():
            hidden_ND = decoder.decode(to_tensor(message.hidden), message.rows).float()
        return CachedHidden(cache=message.cache, hidden=to_array(hidden_ND))

    def end(self, silo: str, cache: int) -> None:
        """Free one cache."""
        del self._kept[silo, cache]

    def end_all(self, silo: str) -> None:
        """Free every cache of a silo."""
        for key in [key for key in self._kept if key[0] == silo]:
            del self._kept[key]

    def bytes_of(self, lengths: Sequence[int], capacity: int) -> int:
        """Return what a cache of these prompts may come to.

        A layer with a window keeps the prompts whole until the first new token.
        """
        prompt = max(lengths)
        columns = (
            capacity if window is None else min(capacity, max(prompt, window)) for window in self._windows
        )
        each = sum(width * num for width, num in zip(columns, self._bytes_by_layer, strict=True))
        return len(lengths) * each

    @contextmanager
    def _computing(self) -> Iterator[None]:
        with evaluating(self._segment), computing_in(self._precision, self._device):
            yield

    def _refusal(self, message: Prefill) -> CacheRefused | None:
        limits = self._limits
        num_rows, num_bytes = len(message.lengths), self.bytes_of(message.lengths, message.capacity)
        for limit, asked, allowed in (
            (CacheLimit.ROWS, num_rows, limits.max_rows),
            (CacheLimit.LENGTH, message.capacity, limits.max_length),
            (CacheLimit.BYTES, num_bytes, limits.max_bytes - self.num_bytes),
        ):
            if asked > allowed:
                return CacheRefused(cache=message.cache, limit=limit, asked=asked, allowed=allowed)
        return None

    def _begin(self, silo: str, message: Prefill) -> CachedHidden:
        decoder = TrunkDecoder(self._segment, message.lengths)
        with self._computing():
            hidden_ND = decoder.prefill(to_tensor(message.hidden)).float()
        num_bytes = self.bytes_of(message.lengths, message.capacity)
        self._kept[silo, message.cache] = _Kept(decoder, num_bytes)
        return CachedHidden(cache=message.cache, hidden=to_array(hidden_ND))
