"""Choices, split: the scores of one silo are those of the model that was never cut."""

import random
from typing import Any

import pytest

from splitlearn.simulation.centralised import train_centralised
from splitlearn.tasks import IGNORED, DataReport, Example, SiloData, TokenRow
from tests.integration.conftest import NewJob

FIXED = {"kind": "choice", "answers": {"0": "a", "1": "b"}, "positive": "1", "group": "question"}
OWN = {"kind": "choice", "candidates": "names", "label": "right"}
SHORT = {"rounds": 1, "steps_per_round": 4, "evaluation": {"batch_size": 3}}


def questions(num_rows: int, *, candidates: int, **facts: Any) -> tuple[Example, ...]:
    """Examples of a random prompt, then one token for each candidate; two of them make a group."""
    chance = random.Random(num_rows)
    made = []
    for number in range(num_rows):
        prompt = tuple(chance.randrange(3, 30) for _ in range(chance.randint(1, 6)))
        rows = tuple(
            TokenRow((*prompt, 30 + answer), (*[IGNORED] * len(prompt), 30 + answer))
            for answer in range(candidates)
        )
        group = (number // 2).to_bytes(16, "big")
        made.append(Example(rows, chance.randrange(candidates), bytes([number]), group=group, **facts))
    return tuple(made)


def silo(heldout: tuple[Example, ...]) -> SiloData:
    training = tuple(example.target for example in questions(20, candidates=2))
    report = DataReport(20 + len(heldout), 20, len(heldout), 0, 0, 0, 0, 0, 0, 12)
    return SiloData("clinic", training, heldout, report)


@pytest.mark.parametrize(
    ("task", "heldout", "names"),
    [
        (
            FIXED,
            questions(12, candidates=2),
            {"f1", "f1_macro", "exact_match"}
            | {f"{name}_{index}" for name in ("precision", "recall", "f1") for index in (0, 1)},
        ),
        (
            OWN,
            questions(9, candidates=3, exact=(True, False, False), token_f1=(1.0, 0.5, 0.0)),
            {"token_f1", "exact_match"},
        ),
    ],
    ids=["fixed", "own"],
)
def test_scores_of_one_silo_are_those_of_the_uncut_model(
    new_job: NewJob, task: dict[str, Any], heldout: tuple[Example, ...], names: set[str]
) -> None:
    job = new_job("llama", silo(heldout), task=task, **SHORT)
    [split] = job.run().silos
    [(_, whole)] = train_centralised(job.spec, job.folder, job.data).evaluations
    assert {score.name for score in split.scores} == names
    assert split.scores == whole.scores
    assert split.accuracy == whole.accuracy
    assert split.evaluations[-1].num_rows == len(heldout)
