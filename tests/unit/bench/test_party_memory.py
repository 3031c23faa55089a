"""The planner's estimate against a process that is measured now."""

import sys

import pytest

from bench.cases import Case
from bench.party_memory import PARTIES, Party, measure

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's peak memory"),
]


@pytest.mark.parametrize("party", PARTIES)
def test_the_estimate_is_within_a_quarter_of_what_a_process_needs(party: Party) -> None:
    row = measure(party, Case(dim=512, layers=6, adapter="full", clip=None, vocab_size=4096))
    assert row.ratio == pytest.approx(1.0, rel=0.25)
    assert row.lasting < row.estimate
