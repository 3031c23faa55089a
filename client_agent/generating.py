"""A silo's part of generating with what a job trained: its blocks, its prompts, its tokens.

::

    open a session ──▶ load blocks, tokenise ──▶ wait for a worker ──▶ talk ──▶ end the session
         ▲                                             ▲                 │ the worker was lost:
         └── it has had its time: another ─────────────┴─────────────────┘ the batch begins anew

Texts stay here. Hidden states of prompts and of new tokens cross, sealed (docs/generation.md).
"""

import asyncio
import math
import time
from collections.abc import Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from client_agent.generation_prompts import Prompt, Wanted
from client_agent.generation_session import GenerationEndedError, GenerationSession
from client_agent.generation_text import ShownText
from client_agent.party_control import PartyControl
from client_agent.places import AgentFolder, JobFolder
from client_agent.preparation import cut_of
from client_agent.training_loop import choose_device
from client_agent.verification import SignedJob, verified_spec
from splitlearn.channel import Terms
from splitlearn.control_plane.client import PartyClient
from splitlearn.control_plane.connecting import gateway_connector
from splitlearn.control_plane.errors import JobOverError, LeaseLostError, NoLeaseError
from splitlearn.control_plane.generation_schemas import TOO_LONG, OpenedGeneration, SiloGeneration
from splitlearn.control_plane.state_folder import StateFolder
from splitlearn.errors import ChannelError, LinkError, ProtocolError, StorageError, TrainingError
from splitlearn.exchange import Exchange
from splitlearn.generation import (
    CacheRefusedError,
    GenerationOptions,
    GenerationTalk,
    Sampling,
    SiloGenerator,
    TextStream,
    context_tokens,
    end_tokens,
    refuse_beyond_context,
)
from splitlearn.parties import ComputeThread, StuckError
from splitlearn.partition import ModelFolder, SiloBlocks, StartingPoint, load_silo_blocks
from splitlearn.protocol import GENERATION_PHASES, PhaseRefusedError, SiloProtocol
from splitlearn.spec import JobSpec
from splitlearn.tasks import TextTokenizer, encode_texts, load_tokenizer
from splitlearn.tasks.chat import chat_prompt
from splitlearn.wire import Codec, Phase

MAX_FAILED_ATTEMPTS = 3
"""After so many conversations in a row that failed while the worker kept the session, give up."""

_OF_THE_OTHER_SIDE = (
    ChannelError,
    JobOverError,
    LeaseLostError,
    LinkError,
    NoLeaseError,
    ProtocolError,
    TrainingError,
)
"""What may be better at another worker: this one died, or was told to end."""

_FINAL = (CacheRefusedError, PhaseRefusedError, StuckError)
_WHILE_LOADING = frozenset({"idle", "needed_elsewhere", "silo_away", "silo_silent"})
"""Reasons of a session whose silo did not come in time."""

_WITHOUT_CHAT = "leave out --chat, so that prompts stand as they are"

_SETTLING_SECONDS = 20.0
"""After a failed conversation the control plane mostly knows more: worker lost, or session ended."""


@dataclass(frozen=True, slots=True, repr=False)
class Answer:
    """What was generated for one prompt.

    Attributes:
        index: Of the prompt, from 0.
        text: Without tokens that stand for no text.
        num_tokens: An end token included.
        seconds: From the beginning of its batch to its last token.
    """

    index: int
    text: str
    num_tokens: int
    seconds: float


@dataclass
class Totals:
    """How much was generated, and what crossed for it.

    Attributes:
        num_prompts, num_tokens: Answered, and in the answers.
        num_crossed: Tokens whose hidden states crossed: prompts, and all but the last of each answer.
        seconds: Of generating.
        num_bytes: Sealed, in both directions, of all workers' turns.
        num_workers: That it took; more than one where a batch was begun anew.
    """

    num_prompts: int = 0
    num_tokens: int = 0
    num_crossed: int = 0
    seconds: float = 0.0
    num_bytes: int = 0
    num_workers: int = 0


class Listener(Protocol):
    """Who is told of answers as they come."""

    def piece(self, text: str) -> None:
        """Take the next piece of the one answer that is asked for."""

    def answer(self, answer: Answer) -> None:
        """Take an answer that is whole."""

    def began_anew(self) -> None:
        """Take notice that the worker was lost, and its batch begins anew at another."""

    def differs(self) -> None:
        """Take notice that the answer came out otherwise: what follows is all of it."""


async def generate(
    client: PartyClient,
    *,
    state: StateFolder,
    job: JobFolder,
    wanted: Wanted,
    listener: Listener,
    device: str = "auto",
) -> Totals:
    """Answer every prompt, with the silo's own blocks of a job and the trunk at a worker.

    Args:
        client: Of this silo.
        state: Its identity.
        job: What is kept of the job here.
        wanted: What is asked for.
        listener: Told of answers.
        device: Where the blocks are computed.

    Raises:
        TrunklineError: Job, silo or prompts are refused, no worker was free, or the session ended.
    """
    run: _Run | None = None
    async with ComputeThread("silo") as compute:
        while run is None or run.left:
            async with GenerationSession(client, job.job_id, wait_seconds=wanted.wait_seconds) as session:
                _refuse_other_result(job, trunk=session.opened.result.digest)
                if run is None:
                    place = _Place(client, state, job, compute, choose_device(device))
                    run = await _Run.prepared(place, session.opened, wanted, listener)
                await run.at(session)
    return run.totals


@dataclass(frozen=True)
class _Place:
    """Where a silo generates.

    Attributes:
        client, state: The control plane, and who this silo is.
        job: What is kept of the job here.
        compute: The thread of its blocks.
        device: Where they lie.
    """

    client: PartyClient
    state: StateFolder
    job: JobFolder
    compute: ComputeThread
    device: str


@dataclass(frozen=True, repr=False)
class _Loaded:
    """What a silo generates with.

    Attributes:
        blocks: With the weights of the result.
        tokenizer: The model's.
        ends: Tokens after which an answer ends.
        vocab_size: Rows of the embedding, where known.
        round: The round whose weights the blocks have.
    """

    blocks: SiloBlocks
    tokenizer: TextTokenizer
    ends: frozenset[int]
    vocab_size: int | None
    round: int

    def tokens(self, prompts: Sequence[Prompt], *, is_chat: bool) -> list[list[int]]:
        """Return the tokens of prompts, as training has seen texts before an answer."""
        if is_chat:
            texts = [
                chat_prompt(
                    prompt.messages or ({"role": "user", "content": prompt.text},),
                    tokenizer=self.tokenizer,
                    remedy=_WITHOUT_CHAT,
                )
                for prompt in prompts
            ]
        else:
            texts = [prompt.text for prompt in prompts]
        begin = [] if is_chat or self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]
        found = encode_texts(texts, tokenizer=self.tokenizer, vocab_size=self.vocab_size)
        return [[*begin, *tokens] for tokens in found]


def _refuse_other_result(job: JobFolder, *, trunk: str) -> None:
    """Refuse where this silo has no result, or one that was made with another trunk than the job's."""
    if not job.result.is_dir() or not job.trunk_result(trunk).is_file():
        raise StorageError(
            f"{job.path} does not hold this silo's result with the job's trunk {trunk[:16]}...; start the "
            "agent, which fetches it while the job waits for that, or restore the folder from your backup"
        )


def _load(
    spec: JobSpec, folder: ModelFolder, *, silo: str, job: JobFolder, round_number: int, device: str
) -> _Loaded:
    cut = cut_of(spec, silo, num_layers=folder.num_layers)
    adapter = None if spec.silo_blocks == "frozen" else spec.adapter
    result = StartingPoint.open(job.result, base=folder, adapter=spec.adapter)
    blocks = load_silo_blocks(result.folder, cut, adapter=adapter, seed=spec.seed, device=device)
    result.begin_blocks(blocks, are_frozen=adapter is None)
    tokenizer = load_tokenizer(folder.path)
    own = frozenset() if tokenizer.eos_token_id is None else frozenset({tokenizer.eos_token_id})
    vocab_size = folder.config.get("vocab_size")
    return _Loaded(
        blocks,
        tokenizer,
        end_tokens(folder.path) | own,
        vocab_size if isinstance(vocab_size, int) else None,
        round_number,
    )


@dataclass
class _Asked:
    """A prompt that has no answer yet."""

    index: int
    tokens: list[int]


@dataclass
class _Row:
    """The answer to a prompt as it comes."""

    stream: TextStream
    num_tokens: int = 0
    seconds: float = 0.0

    def add(self, token: int, *, seconds: float) -> str:
        """Take the next token; returns what of the text is new and sure."""
        self.num_tokens, self.seconds = self.num_tokens + 1, seconds
        return self.stream.add(token)


@dataclass
class _Run:
    """One call of :func:`generate`, from the loaded blocks to the last answer.

    Attributes:
        left: Prompts without an answer, in order.
        totals: How much was generated so far.
    """

    place: _Place
    spec: JobSpec
    loaded: _Loaded
    wanted: Wanted
    listener: Listener
    left: list[_Asked]
    totals: Totals = field(default_factory=Totals)
    _shown: ShownText = field(default_factory=ShownText, init=False)
    _was_late: bool = field(default=False, init=False)

    @classmethod
    async def prepared(
        cls, place: _Place, opened: OpenedGeneration, wanted: Wanted, listener: Listener
    ) -> "_Run":
        """Verify the job, load the silo's blocks of it, and tokenise the prompts.

        Raises:
            TrunklineError: The job, or a prompt, is refused; no worker was sent anything.
        """
        state, silo = place.state, place.state.enrolled().name
        signed = SignedJob(opened.job, opened.spec, opened.signature)
        spec = verified_spec(signed, trust=state.trust(), now=datetime.now(tz=UTC))
        models = AgentFolder(state.path).models
        control = PartyControl(place.client, state=state, job_id=opened.job, silo=silo, models=models)
        model = await control.fetch_model(spec)
        loaded = await place.compute(
            _load,
            spec,
            ModelFolder.open(model.path),
            silo=silo,
            job=place.job,
            round_number=opened.round,
            device=place.device,
        )
        prompts = await place.compute(loaded.tokens, wanted.prompts, is_chat=wanted.is_chat)
        refuse_beyond_context(
            prompts, max_new_tokens=wanted.max_new_tokens, context=context_tokens(loaded.blocks)
        )
        left = [_Asked(index, tokens) for index, tokens in enumerate(prompts)]
        return cls(place, spec, loaded, wanted, listener, left)

    async def at(self, session: GenerationSession) -> None:
        """Answer what is left within a session, at as many workers as it takes.

        One that has had its time leaves the rest to another, if it has answered anything: so whoever waits
        gets a turn between the two. And one that has ended while this silo loaded its blocks is followed by
        another, once: they are loaded now.
        """
        num_left = len(self.left)
        try:
            await self._answer_all(session)
        except GenerationEndedError as error:
            had_its_time = error.code == TOO_LONG and len(self.left) < num_left
            was_late = error.code in _WHILE_LOADING and not (self.totals.num_workers or self._was_late)
            if not (had_its_time or was_late):
                raise
            self._was_late = was_late

    async def _answer_all(self, session: GenerationSession) -> None:
        over, num_failed = 0, 0
        while self.left:
            standing = await session.hosted(after_epoch=over)
            num_left = len(self.left)
            try:
                await self._converse(session, standing)
                over = standing.epoch  # it is through, or its worker has lost it
            except _FINAL:
                raise
            except _OF_THE_OTHER_SIDE:
                if await _moves_on(session, standing.epoch):
                    over, num_failed = standing.epoch, 0
                    continue
                num_failed = 1 if len(self.left) < num_left else num_failed + 1
                if num_failed >= MAX_FAILED_ATTEMPTS:
                    raise

    async def _converse(self, session: GenerationSession, standing: SiloGeneration) -> None:
        """Generate with one worker until nothing is left, or the worker is lost."""
        self.totals.num_workers += 1
        if self.totals.num_workers > 1:
            self.listener.began_anew()
        talking = asyncio.create_task(self._talk(standing), name="talk")
        moved = asyncio.create_task(session.moved(standing.epoch), name="session")
        try:
            await asyncio.wait({talking, moved}, return_when=asyncio.FIRST_COMPLETED)
            # Once all is answered the worker gives the session back: its end is no news.
            await (talking if talking.done() or not self.left else moved)
        finally:
            for task in (talking, moved):
                task.cancel()
            await asyncio.gather(talking, moved, return_exceptions=True)

    async def _talk(self, standing: SiloGeneration) -> None:
        assert standing.worker is not None, "it is hosted"
        async with self._exchange(standing, standing.worker) as exchange:
            talk = GenerationTalk(
                self.loaded.blocks,
                exchange=exchange,
                compute=self.place.compute,
                round_number=self.loaded.round,
                precision=self.spec.precision,
            )
            try:
                async with talk as generator:
                    while self.left:
                        await self._answer(generator, min(self.wanted.batch_size, len(self.left)))
            finally:
                self.totals.num_bytes += exchange.traffic.bytes_of(Phase.GENERATE)

    async def _answer(self, generator: SiloGenerator, num: int) -> None:
        """Answer the first so many of those left, in halves where the worker has no room for them at once."""
        batch = self.left[:num]
        try:
            answers = await self._generate(generator, batch)
        except CacheRefusedError:
            if num == 1:
                raise
            await self._answer(generator, num // 2)
            await self._answer(generator, num - num // 2)
            return
        del self.left[:num]
        for asked, answer in zip(batch, answers, strict=True):
            self.totals.num_prompts += 1
            self.totals.num_tokens += answer.num_tokens
            self.totals.num_crossed += len(asked.tokens) + answer.num_tokens - 1
            self.listener.answer(answer)

    async def _generate(self, generator: SiloGenerator, batch: list[_Asked]) -> list[Answer]:
        rows = [_Row(TextStream(self.loaded.tokenizer)) for _ in batch]
        is_shown = len(self.wanted.prompts) == 1
        self._shown.begin()
        began = time.perf_counter()
        prompts = [asked.tokens for asked in batch]
        async with aclosing(generator.stream(prompts, self._options(batch[0].index))) as steps:
            async for chosen in steps:
                seconds = time.perf_counter() - began
                for row, token in zip(rows, chosen.tokens, strict=True):
                    if token is not None:
                        piece = row.add(token, seconds=seconds)
                        if is_shown:
                            self._show(*self._shown.add(piece))
        if is_shown:
            self._show(*self._shown.add(rows[0].stream.rest()))
            self._show(*self._shown.end())
        self.totals.seconds += time.perf_counter() - began
        return [
            Answer(asked.index, row.stream.text, row.num_tokens, row.seconds)
            for asked, row in zip(batch, rows, strict=True)
        ]

    def _show(self, new: str, is_anew: bool) -> None:  # noqa: FBT001 - as it is returned
        if is_anew:
            self.listener.differs()
        if new:
            self.listener.piece(new)

    def _options(self, first: int) -> GenerationOptions:
        wanted, sampling = self.wanted, None
        if wanted.is_sampled:
            sampling = Sampling(
                temperature=1.0 if wanted.temperature is None else wanted.temperature,
                top_k=wanted.top_k,
                top_p=wanted.top_p,
                seed=wanted.seed + first,  # another one for each batch: rows are numbered in each from 0
            )
        return GenerationOptions(
            max_new_tokens=wanted.max_new_tokens, end_tokens=self.loaded.ends, sampling=sampling
        )

    def _exchange(self, standing: SiloGeneration, worker: str) -> Exchange:
        state, silo = self.place.state, self.place.state.enrolled().name
        terms = Terms(
            job_id=standing.id,
            replica=0,
            epoch=standing.epoch,
            spec_digest=self.spec.digest(),
            silo_name=silo,
            worker_name=worker,
        )
        protocol = SiloProtocol(
            terms,
            identity=state.identity(),
            trust=state.trust(),
            codec=Codec(self.spec.codec),
            served_phases=GENERATION_PHASES,
        )
        connect = gateway_connector(
            self.place.client, job=standing.id, replica=0, epoch=standing.epoch, silo=silo
        )
        # The control plane tells when the worker is lost; giving up here would only be sooner than it knows.
        return Exchange(protocol, connect=connect, peer=worker, patience_seconds=math.inf)


async def _moves_on(session: GenerationSession, epoch: int) -> bool:
    """Wait a while for the control plane to know more than that the conversation failed."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_SETTLING_SECONDS):
            await session.moved(epoch)
            return True
    return False
