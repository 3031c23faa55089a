"""One message of every type."""

from typing import Any

import numpy as np
import pytest
import torch

from splitlearn.wire import (
    Activations,
    CachedHidden,
    CacheEnd,
    CacheLimit,
    CacheRefused,
    Decode,
    Goodbye,
    GoodbyeReason,
    GradActivations,
    GradHidden,
    Hidden,
    JobEnd,
    JobStatus,
    Message,
    Outcome,
    PaddingSide,
    Phase,
    Prefill,
    Ready,
    Refusal,
    RefusalCode,
    RoundEnd,
    RoundSaved,
    StepVoid,
    SumConsent,
    SumConsents,
    SumDone,
    SumEnd,
    SumKey,
    SumPart,
    SumRoster,
    SumStart,
    SumTotal,
    TurnEnd,
    TurnRequest,
    TurnResult,
    TurnStart,
)

torch.set_num_threads(1)


@pytest.fixture
def rows_nd() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)


@pytest.fixture
def every_message(rows_nd: Any) -> list[Message]:
    key = SumKey(
        certificate=bytes(range(190)),
        key=bytes(32),
        num_tokens=1 << 40,
        num_words=7,
        next_attempt=3,
        signature=bytes(64),
    )
    words = np.array([0, 1, 2**32 - 1], np.uint32)
    outcome = Outcome(norms_bottom=(0.5, 1.25), norms_trunk=(2.0,), norms_top=(), finite=True, num_tokens=17)
    return [
        Ready(last_round=3, served=frozenset({Phase.TRAIN, Phase.EVAL})),
        TurnRequest(phase=Phase.GENERATE),
        Activations(
            phase=Phase.TRAIN,
            micro_batch=0,
            num_micro_batches=2,
            lengths=(2, 3),
            padding_side=PaddingSide.LEFT,
            num_label_tokens=3,
            outcome=outcome,
            hidden=rows_nd,
        ),
        GradHidden(micro_batch=1, loss_sum=2.5, grad=rows_nd),
        TurnEnd(outcome=None, loss_sum=float("nan"), num_tokens=1 << 40),
        RoundSaved(round=4),
        Goodbye(reason=GoodbyeReason.FINISHED),
        TurnStart(phase=Phase.EVAL, round=1, first_step=0, num_steps=10),
        Hidden(micro_batch=2, hidden=rows_nd),
        GradActivations(micro_batch=0, outcome=outcome, grad=rows_nd),
        GradActivations(micro_batch=0, outcome=None, grad=None),
        StepVoid(step=9),
        TurnResult(voided=True),
        RoundEnd(round=4),
        JobEnd(status=JobStatus.COMPLETED),
        Refusal(code=RefusalCode.TOO_LARGE),
        key,
        SumConsent(signature=bytes(64), seeds=(bytes(48), bytes(range(48)))),
        SumPart(offset=1 << 33, words=words),
        SumDone(averaged=True),
        SumStart(round=2, step=40),
        SumRoster(attempt=3, members=(key, key, key)),
        SumConsents(signatures=(bytes(64),) * 3, seed=bytes(48)),
        SumConsents(signatures=(), seed=None),
        SumTotal(offset=0, words=words),
        SumEnd(averaged=False),
        Prefill(cache=7, capacity=1 << 20, lengths=(2, 3), hidden=rows_nd),
        Decode(cache=7, rows=(0, 1, 4, 5, 9), positions=(2, 3, 4, 5, 6), hidden=rows_nd),
        CacheEnd(cache=7),
        CachedHidden(cache=7, hidden=rows_nd),
        CacheRefused(cache=7, limit=CacheLimit.LENGTH, asked=1 << 40, allowed=8192),
    ]
