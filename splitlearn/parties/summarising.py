"""Texts for an evaluation, generated with one silo after another: what both parties do for it."""

from collections.abc import Sequence
from pathlib import Path

from splitlearn.generation import CacheLimits, SiloSummaries, SummaryPlan, TrunkCaches, metrics_of
from splitlearn.parties.compute import ComputeThread
from splitlearn.parties.round_table import RoundTable, unexpected
from splitlearn.partition import SiloBlocks, TrunkSegment
from splitlearn.protocol import GENERATION_PHASES, SERVED_PHASES
from splitlearn.spec import JobSpec
from splitlearn.tasks import Example, load_tokenizer
from splitlearn.training.precision import Precision
from splitlearn.wire import CacheEnd, Decode, Phase, Prefill, TurnEnd, TurnResult, TurnStart


async def generate_at_trunk(
    table: RoundTable,
    names: Sequence[str],
    *,
    trunk: TrunkSegment,
    compute: ComputeThread,
    round_number: int,
    precision: Precision,
) -> None:
    """Give every silo a generating turn; one at a time, so that no silo's caches crowd out another's.

    Args:
        table: The conversations.
        names: The silos, in the job's order.
        trunk: The trunk.
        compute: Where it is computed.
        round_number: From 1.
        precision: Of the job.

    Raises:
        TrainingError: A silo left, or made no progress within patience.
        ProtocolError: A silo broke the turn's rules.
    """
    caches = await compute(TrunkCaches, trunk, limits=CacheLimits(), precision=precision)
    start = TurnStart(phase=Phase.GENERATE, round=round_number, first_step=0, num_steps=0)
    for name in names:
        await table.send(name, start)
        await _serve(table, name, caches, compute)


async def _serve(table: RoundTable, name: str, caches: TrunkCaches, compute: ComputeThread) -> None:
    while True:
        _, message = await table.next({name})
        match message:
            case Prefill() | Decode():
                await table.send(name, await compute(caches.answer, name, message))
            case CacheEnd():
                await compute(caches.end, name, message.cache)
            case TurnEnd():
                await compute(caches.end_all, name)
                await table.send(name, TurnResult(voided=False))
                return
            case _:
                raise unexpected(name, message)


def phases_of(spec: JobSpec) -> frozenset[Phase]:
    """Return the phases that a silo serves in a job."""
    return SERVED_PHASES | GENERATION_PHASES if metrics_of(spec.task) else SERVED_PHASES


def summaries_of(
    spec: JobSpec,
    examples: Sequence[Example],
    *,
    blocks: SiloBlocks,
    model_folder: Path,
    compute: ComputeThread,
    peer: str,
) -> SiloSummaries | None:
    """Return a silo's part in the evaluation by generated texts; None where the job asks for none.

    Args:
        spec: The job.
        examples: Held-out examples, of which as many count as in the evaluation by loss.
        blocks: The silo's bottom and top.
        model_folder: Where the tokenizer lies.
        compute: Where the blocks are computed.
        peer: Name of the worker, for messages to people.

    Raises:
        ModelError: The folder has no tokenizer, or it cannot be read.
    """
    metrics = metrics_of(spec.task)
    if not metrics:
        return None
    tokenizer = load_tokenizer(model_folder)
    plan = SummaryPlan(
        examples[: spec.evaluation.max_rows],
        metrics=metrics,
        tokenizer=tokenizer,
        end_token=tokenizer.eos_token_id,
        batch_size=spec.evaluation.batch_size,
    )
    return SiloSummaries(plan, blocks, compute, peer, spec.precision)
