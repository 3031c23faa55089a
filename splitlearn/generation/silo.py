"""The silo's side of a generating turn: prompts out, tokens in, one round trip each."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import ParamSpec, Protocol, TypeVar

from splitlearn.errors import ProtocolError
from splitlearn.generation.decoding import Chosen, SiloDecoder
from splitlearn.generation.errors import CacheRefusedError
from splitlearn.generation.options import GenerationOptions
from splitlearn.partition import SiloBlocks, to_array, to_tensor
from splitlearn.training.precision import Precision
from splitlearn.wire import CachedHidden, CacheEnd, CacheLimit, CacheRefused, Decode, Message, Prefill

P = ParamSpec("P")
R = TypeVar("R")
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]

_REFUSALS = {
    CacheLimit.BYTES: "{asked} bytes of cache for {rows} rows of at most {capacity} tokens, of which "
    "{allowed} are free; ask for fewer rows or tokens at once, wait until others are done, or raise the "
    "limit of caches at the worker",
    CacheLimit.ROWS: "{asked} rows at once, of which it takes {allowed}; ask for fewer at once",
    CacheLimit.LENGTH: "rows of at most {asked} tokens, of which it takes {allowed}; shorten the prompt or "
    "lower max_new_tokens",
}


class Compute(Protocol):
    """Runs a function where tensors are computed, and waits for it."""

    async def __call__(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it and return or raise what it does."""


@dataclass(frozen=True, slots=True)
class Generated:
    """What was generated for a batch of prompts.

    Attributes:
        tokens: By row: the answer's tokens, an end token included where there was one.
        num_steps: Passages of the model: the prompts', then one per further token of the longest answer.
    """

    tokens: tuple[tuple[int, ...], ...]
    num_steps: int


class SiloGenerator:
    """Generates, one batch after another, within a turn that the trunk has begun.

    Args:
        blocks: The silo's bottom and top.
        send: Says something to the trunk.
        receive: Returns what the trunk says next.
        compute: Where the blocks are computed.
        peer: Name of the worker, for messages to people.
        precision: Of the job.
    """

    def __init__(
        self,
        blocks: SiloBlocks,
        *,
        send: Send,
        receive: Receive,
        compute: Compute,
        peer: str,
        precision: Precision = "fp32",
    ) -> None:
        self._precision: Precision = precision
        self._blocks, self._send, self._receive = blocks, send, receive
        self._compute, self._peer = compute, peer
        self._num_caches = 0
        self._owed: int | None = None

    async def generate(self, prompts: Sequence[Sequence[int]], options: GenerationOptions) -> Generated:
        """Generate an answer to every prompt; errors as of :meth:`stream`."""
        answers: list[list[int]] = [[] for _ in prompts]
        num_steps = 0
        async with aclosing(self.stream(prompts, options)) as steps:
            async for chosen in steps:
                num_steps += 1
                for answer, token in zip(answers, chosen.tokens, strict=True):
                    if token is not None:
                        answer.append(token)
        return Generated(tuple(map(tuple, answers)), num_steps)

    async def stream(
        self, prompts: Sequence[Sequence[int]], options: GenerationOptions
    ) -> AsyncGenerator[Chosen, None]:
        """Yield the tokens of each step as they are chosen; close the iterator to stop earlier.

        Raises:
            PromptError: The prompts do not fit the model.
            CacheRefusedError: The trunk has no room for so many or so long rows.
            TrunklineError: The conversation failed.
        """
        await self.settle()
        decoder = await self._compute(SiloDecoder, self._blocks, prompts, options, precision=self._precision)
        hidden_ND = await self._compute(decoder.prefill)
        cache = self._num_caches
        prefill = Prefill(
            cache=cache, capacity=decoder.capacity, lengths=decoder.lengths, hidden=to_array(hidden_ND)
        )
        answer = await self._ask(prefill)
        try:
            while True:
                chosen = await self._compute(decoder.choose, to_tensor(answer.hidden))
                yield chosen
                if not decoder.rows:
                    return
                hidden_ND = await self._compute(decoder.decode)
                answer = await self._ask(
                    Decode(
                        cache=cache,
                        rows=decoder.rows,
                        positions=decoder.positions,
                        hidden=to_array(hidden_ND),
                    )
                )
        finally:
            if self._owed is None:
                await self._send(CacheEnd(cache=cache))

    async def settle(self) -> None:
        """Take in the answer to what a stopped stream had asked, and end its cache; else do nothing."""
        if self._owed is None:
            return
        cache = self._owed
        if not isinstance(await self._receive(), CacheRefused):
            await self._send(CacheEnd(cache=cache))
        self._owed = None

    async def _ask(self, message: Prefill | Decode) -> CachedHidden:
        await self._send(message)
        self._owed = message.cache
        self._num_caches = max(self._num_caches, message.cache + 1)
        answer = await self._receive()
        self._owed = None
        match answer:
            case CachedHidden() if answer.cache == message.cache:
                return answer
            case CacheRefused() if isinstance(message, Prefill):
                raise self._refused(answer, message)
            case _:
                raise ProtocolError(f"a {type(answer).__name__} message where cache {message.cache} is due")

    def _refused(self, answer: CacheRefused, message: Prefill) -> CacheRefusedError:
        wanted = _REFUSALS[answer.limit].format(
            asked=answer.asked,
            allowed=answer.allowed,
            rows=len(message.lengths),
            capacity=message.capacity,
        )
        return CacheRefusedError(f"{self._peer} would need {wanted}")
