"""Texts for an evaluation, generated with one silo after another, as the trunk serves it."""

from collections.abc import Sequence

from splitlearn.generation import CacheLimits, TrunkCaches
from splitlearn.parties.compute import ComputeThread
from splitlearn.parties.round_table import RoundTable, unexpected
from splitlearn.partition import TrunkSegment
from splitlearn.wire import CacheEnd, Decode, Phase, Prefill, TurnEnd, TurnResult, TurnStart


async def generate_at_trunk(
    table: RoundTable,
    names: Sequence[str],
    *,
    trunk: TrunkSegment,
    compute: ComputeThread,
    round_number: int,
) -> None:
    """Give every silo a generating turn; one at a time, so that no silo's caches crowd out another's.

    Args:
        table: The conversations.
        names: The silos, in the job's order.
        trunk: The trunk.
        compute: Where it is computed.
        round_number: From 1.

    Raises:
        TrainingError: A silo left, or made no progress within patience.
        ProtocolError: A silo broke the turn's rules.
    """
    caches = await compute(TrunkCaches, trunk, limits=CacheLimits())
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
