"""What is refused, by whom, and what is left after it."""

import asyncio
import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import torch

from splitlearn.errors import LocalProtocolError, ProtocolError, TrainingError
from splitlearn.exchange import Exchange
from splitlearn.generation import (
    CacheLimits,
    CacheRefusedError,
    GenerationOptions,
    GenerationTalk,
    PromptError,
    Sampling,
    SiloDecoder,
    TrunkCaches,
    TrunkGeneration,
    context_tokens,
    refuse_beyond_context,
)
from splitlearn.link import MemorySwitchboard
from splitlearn.parties import ComputeThread
from splitlearn.protocol import GENERATION_PHASES, PhaseRefusedError, SiloProtocol, TrunkProtocol
from splitlearn.simulation.generating import Parts, generating
from splitlearn.simulation.roster import WORKER_NAME, enrol
from splitlearn.wire import Codec, Goodbye, GoodbyeReason, Message, Phase, Ready, TurnStart
from tests.unit.generation.conftest import PROMPTS, SILO, job, run

PartsOf = Callable[..., Parts]
OPTIONS = GenerationOptions(max_new_tokens=5)
LAYER_BYTES = 2 * 2 * 8 * 4  # keys and values of two heads of 8 in fp32
ROOM = 3 * (12 + 5) * 3 * LAYER_BYTES  # for PROMPTS in three layers


def sides(served: frozenset[Phase] = GENERATION_PHASES) -> tuple[Exchange, Exchange]:
    """A silo that generates and a worker that serves some phases, on one line."""
    roster, board = enrol(job()), MemorySwitchboard()
    ours = SiloProtocol(
        roster.terms[SILO],
        identity=roster.silos[SILO],
        trust=roster.trust,
        codec=Codec.FP32,
        served_phases=GENERATION_PHASES,
    )
    theirs = TrunkProtocol(
        roster.terms[SILO],
        identity=roster.worker,
        trust=roster.trust,
        codec=Codec.FP32,
        served_phases=served,
    )
    silo = Exchange(ours, connect=board.dial, peer=WORKER_NAME)
    return silo, Exchange(theirs, connect=board.answer, peer="silo 'north'")


class TestCacheLimits:
    def test_refuse_a_batch_that_would_not_fit_and_name_what_helps(self, parts_of: PartsOf) -> None:
        spec = job()

        async def ask() -> None:
            limits = CacheLimits(max_bytes=ROOM - 1)
            async with generating(spec, parts_of("llama", spec), silo=SILO, limits=limits) as generation:
                with pytest.raises(CacheRefusedError) as caught:
                    await generation.generator.generate(PROMPTS, OPTIONS)
                said = caught.value.message
                assert f"{ROOM} bytes of cache for 3 rows of at most 17 tokens" in said
                assert f"{ROOM - 1} are free" in said
                assert "fewer rows or tokens" in said
                assert generation.served.caches.num_bytes == 0
                fewer = await generation.generator.generate(PROMPTS[:2], OPTIONS)
                assert list(map(len, fewer.tokens)) == [5, 5]

        run(ask())

    def test_are_reached_exactly_and_given_back(self, parts_of: PartsOf) -> None:
        spec = job()

        async def ask() -> list[int]:
            limits = CacheLimits(max_bytes=ROOM)
            seen: list[int] = []
            async with generating(spec, parts_of("llama", spec), silo=SILO, limits=limits) as generation:
                for _ in range(2):  # the second finds what the first gave back
                    async with aclosing(generation.generator.stream(PROMPTS, OPTIONS)) as steps:
                        seen += [generation.served.caches.num_bytes async for _ in steps]
            return [*seen, generation.served.caches.num_bytes]

        assert run(ask()) == [ROOM] * 10 + [0]

    @pytest.mark.parametrize(
        ("limits", "said"),
        [
            (CacheLimits(max_rows=2), "3 rows at once, of which it takes 2"),
            (CacheLimits(max_length=16), "rows of at most 17 tokens, of which it takes 16"),
        ],
    )
    def test_bound_rows_and_length(self, limits: CacheLimits, said: str, parts_of: PartsOf) -> None:
        spec = job()

        async def ask() -> None:
            async with generating(spec, parts_of("llama", spec), silo=SILO, limits=limits) as generation:
                with pytest.raises(CacheRefusedError, match=said):
                    await generation.generator.generate(PROMPTS, OPTIONS)

        run(ask())

    def test_count_a_window_as_what_it_keeps(self, parts_of: PartsOf) -> None:
        trunk = parts_of("gemma2", job()).trunk  # full, window of 4, full
        caches = TrunkCaches(trunk, limits=CacheLimits())
        assert caches.bytes_of((1, 2), 30) == 2 * (30 + 4 + 30) * LAYER_BYTES
        assert caches.bytes_of((20, 2), 30) == 2 * (30 + 20 + 30) * LAYER_BYTES

    def test_must_be_positive(self) -> None:
        with pytest.raises(LocalProtocolError, match="max_rows is 0"):
            CacheLimits(max_rows=0)


class TestContext:
    @pytest.mark.parametrize("family", ["llama", "gemma2", "opt"])  # rotary, with a window, learned
    def test_is_what_the_configuration_says(
        self, family: str, parts_of: PartsOf, model_path: Callable[[str], Path]
    ) -> None:
        config = json.loads((model_path(family) / "config.json").read_text())
        assert context_tokens(parts_of(family, job()).blocks) == config["max_position_embeddings"]

    def test_holds_prompt_and_answer(self) -> None:
        refuse_beyond_context([[3], [3] * 60], max_new_tokens=4, context=64)
        with pytest.raises(PromptError) as caught:
            refuse_beyond_context([[3], [3] * 61], max_new_tokens=4, context=64)
        assert caught.value.exit_code == 4
        assert caught.value.message.startswith(
            "prompt 2 has 61 tokens, with max_new_tokens 4 it comes to 65; the model's context is 64 tokens"
        )

    def test_that_the_configuration_does_not_tell_refuses_nothing(self) -> None:
        refuse_beyond_context([[3] * 9000], max_new_tokens=4, context=None)


class TestPrompts:
    @pytest.mark.parametrize(
        ("prompts", "said"),
        [
            ([], "no prompt"),
            ([[3], []], "prompt 2 has no token"),
            ([[3, 67]], "token 67, the model's vocabulary ends at 66"),
            ([[3, -1]], "token -1"),
        ],
    )
    def test_are_checked(self, prompts: list[list[int]], said: str, parts_of: PartsOf) -> None:
        with pytest.raises(PromptError, match=said):
            SiloDecoder(parts_of("llama", job()).blocks, prompts, OPTIONS)

    def test_may_not_outgrow_learned_positions(self, parts_of: PartsOf) -> None:
        blocks = parts_of("opt", job()).blocks  # 64 positions
        SiloDecoder(blocks, [[3] * 59], OPTIONS)
        with pytest.raises(PromptError, match="may come to 65 tokens, the model has positions for 64"):
            SiloDecoder(blocks, [[3] * 60], OPTIONS)


class TestStream:
    def test_may_be_stopped_and_another_begun(self, parts_of: PartsOf) -> None:
        spec = job()

        async def ask() -> None:
            async with generating(spec, parts_of("llama", spec), silo=SILO) as generation:
                whole = await generation.generator.generate(PROMPTS, OPTIONS)
                first = [row[0] for row in whole.tokens]
                async with aclosing(generation.generator.stream(PROMPTS, OPTIONS)) as steps:
                    async for chosen in steps:
                        assert list(chosen.tokens) == first
                        break
                assert (await generation.generator.generate(PROMPTS, OPTIONS)).tokens == whole.tokens
            assert generation.served.caches.num_bytes == 0

        run(ask())

    def test_cancelled_in_mid_answer_leaves_the_talk_usable(self, parts_of: PartsOf) -> None:
        spec = job()

        async def ask() -> None:
            async with generating(spec, parts_of("llama", spec), silo=SILO) as generation:
                generator = generation.generator
                whole = await generator.generate(PROMPTS, OPTIONS)
                asked = asyncio.Event()
                receive = generator._receive

                async def told() -> Message:
                    asked.set()
                    return await receive()

                generator._receive = told
                task = asyncio.create_task(generator.generate(PROMPTS, OPTIONS))
                await asked.wait()
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                assert (await generator.generate(PROMPTS, OPTIONS)).tokens == whole.tokens

        run(ask())

    def test_samples_repeat_by_their_seed(self, parts_of: PartsOf) -> None:
        spec = job()

        async def ask(seed: int) -> tuple[tuple[int, ...], ...]:
            options = GenerationOptions(max_new_tokens=5, sampling=Sampling(seed=seed))
            async with generating(spec, parts_of("llama", spec), silo=SILO) as generation:
                return (await generation.generator.generate(PROMPTS, options)).tokens

        assert run(ask(1)) == run(ask(1)) != run(ask(2))


class TestRefusals:
    def test_a_worker_that_trains_refuses_to_generate(self, parts_of: PartsOf) -> None:
        async def ask() -> None:
            silo, worker = sides(served=frozenset({Phase.TRAIN, Phase.EVAL}))
            async with ComputeThread("silo") as compute, silo, worker:
                talk = GenerationTalk(
                    parts_of("llama", job()).blocks, exchange=silo, compute=compute, round_number=0
                )
                with pytest.raises(PhaseRefusedError, match="unserved_phase"):
                    await talk.__aenter__()

        run(ask())

    def test_a_silo_of_another_round_is_refused(self, parts_of: PartsOf) -> None:
        parts = parts_of("llama", job())

        async def ask() -> None:
            silo, worker = sides()
            async with ComputeThread("silo") as compute, silo, worker:
                served = TrunkGeneration(
                    caches=TrunkCaches(parts.trunk, limits=CacheLimits()),
                    exchanges={SILO: worker},
                    compute=compute,
                    round_number=4,
                    idle_seconds=60,
                )
                serving = asyncio.create_task(served.run())
                talk = GenerationTalk(parts.blocks, exchange=silo, compute=compute, round_number=3)
                with pytest.raises(PhaseRefusedError, match="round 3: wrong_round"):
                    await talk.__aenter__()
                assert await serving

        run(ask())

    def test_a_silo_that_trains_refuses_a_generating_turn(self) -> None:
        async def ask() -> None:
            roster, board = enrol(job()), MemorySwitchboard()
            silo = Exchange(
                SiloProtocol(
                    roster.terms[SILO],
                    identity=roster.silos[SILO],
                    trust=roster.trust,
                    codec=Codec.FP32,
                ),
                connect=board.dial,
                peer=WORKER_NAME,
            )
            worker = Exchange(
                TrunkProtocol(
                    roster.terms[SILO],
                    identity=roster.worker,
                    trust=roster.trust,
                    codec=Codec.FP32,
                ),
                connect=board.answer,
                peer="silo",
            )
            async with silo, worker:
                await silo.send(Ready(last_round=0, served=frozenset({Phase.TRAIN, Phase.EVAL})))
                await worker.receive()
                await worker.send(TurnStart(phase=Phase.GENERATE, round=1, first_step=0, num_steps=0))
                with pytest.raises(PhaseRefusedError, match="silo 'north' serves eval, train"):
                    await silo.receive()

        run(ask())

    def test_an_idle_silo_is_dismissed(self, parts_of: PartsOf) -> None:
        parts = parts_of("llama", job())

        async def ask() -> None:
            times: Iterator[int] = itertools.repeat(0)
            silo, worker = sides()
            async with ComputeThread("silo") as compute, silo, worker:
                served = TrunkGeneration(
                    caches=TrunkCaches(parts.trunk, limits=CacheLimits()),
                    exchanges={SILO: worker},
                    compute=compute,
                    round_number=0,
                    idle_seconds=0.05,
                    now=lambda: next(times),
                )
                serving = asyncio.create_task(served.run())
                async with GenerationTalk(
                    parts.blocks, exchange=silo, compute=compute, round_number=0
                ) as generator:
                    await generator.generate(PROMPTS, OPTIONS)
                    times = itertools.count(1)  # from now on every look at the clock is too late
                    assert not await serving
                    with pytest.raises(TrainingError, match="nothing was asked for too long"):
                        await generator.generate(PROMPTS, OPTIONS)
                    raise _DoneError

        with pytest.raises(_DoneError):
            run(ask())

    def test_a_worker_that_ends_while_the_silo_computes_is_told_as_what_it_is(
        self, parts_of: PartsOf
    ) -> None:
        parts = parts_of("llama", job())

        async def ask() -> None:
            silo, worker = sides()
            async with ComputeThread("silo") as compute, silo, worker:
                served = TrunkGeneration(
                    caches=TrunkCaches(parts.trunk, limits=CacheLimits()),
                    exchanges={SILO: worker},
                    compute=compute,
                    round_number=0,
                    idle_seconds=60,
                )
                serving = asyncio.create_task(served.run())
                talk = GenerationTalk(parts.blocks, exchange=silo, compute=compute, round_number=0)
                async with talk as generator:
                    async for _ in generator.stream(PROMPTS, OPTIONS):
                        serving.cancel()
                        while not silo.has_received:  # noqa: ASYNC110 - it has no event to wait for
                            await asyncio.sleep(0.01)

        with pytest.raises(TrainingError, match="ended the generation"):
            run(ask())

    def test_a_goodbye_at_once_ends_the_trunks_part(self, parts_of: PartsOf) -> None:
        parts = parts_of("llama", job())

        async def ask() -> bool:
            silo, worker = sides()
            async with ComputeThread("trunk") as compute, silo, worker:
                served = TrunkGeneration(
                    caches=TrunkCaches(parts.trunk, limits=CacheLimits()),
                    exchanges={SILO: worker},
                    compute=compute,
                    round_number=0,
                    idle_seconds=60,
                )
                serving = asyncio.create_task(served.run())
                await silo.send(Goodbye(reason=GoodbyeReason.CANCELLED))
                return await serving

        assert run(ask())

    def test_a_shape_that_lies_ends_the_conversation(
        self, parts_of: PartsOf, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        parts = parts_of("llama", job())
        narrow = torch.zeros(22, 16)

        async def ask() -> Any:
            spec = job()
            async with generating(spec, parts, silo=SILO) as generation:
                await generation.generator.generate(PROMPTS, OPTIONS)

        monkeypatch.setattr(SiloDecoder, "prefill", lambda _: narrow)
        with pytest.raises(ProtocolError, match=r"shape \[22, 16\], expected \[22, 32\]"):
            run(ask())


class _DoneError(Exception):
    """The talk was dismissed: it cannot be ended in order."""
