"""What leaves a silo, compared between runs that differ in what must not leave.

The plaintext of every message is taken where it is encoded, before sealing. Two runs of one step from
equal weights may differ only in the fields that the closed list describes as functions of text or labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from splitlearn.protocol import SiloProtocol
from splitlearn.tasks import IGNORED, SiloData, TokenBatch, TokenRow
from splitlearn.training import SiloTrainer, StepKey
from splitlearn.wire import (
    Activations,
    Codec,
    Direction,
    Message,
    MessageError,
    TurnResult,
    UnlistedError,
    decode_message,
    encode_message,
)
from tests.integration.conftest import NewJob, silo_data
from tests.integration.recording import Take, data_of, leaves, run_recorded, sft_rows

LOSSES_AND_NORMS = {
    "GradHidden.loss_sum",
    "TurnEnd.loss_sum",
    "Outcome.norms_bottom",
    "Outcome.norms_trunk",
    "Outcome.norms_top",
}
GRADIENTS = {"GradHidden.grad", "GradActivations.grad"}
ACTIVATIONS = {"Activations.hidden", "Hidden.hidden"}
OF_TEXT = ACTIVATIONS | GRADIENTS | LOSSES_AND_NORMS
OF_LABELS = GRADIENTS | LOSSES_AND_NORMS


def differing_fields(left: Sequence[Message], right: Sequence[Message]) -> set[str]:
    """Compare two recordings; they must agree in the messages' types, order, shapes and list lengths."""
    assert [type(message) for message in left] == [type(message) for message in right]
    found = set()
    for mine, theirs in zip(left, right, strict=True):
        for (name, value), (other_name, other) in zip(leaves(mine), leaves(theirs), strict=True):
            assert name == other_name
            assert np.shape(value) == np.shape(other), name
            if not np.array_equal(
                np.asarray(value), np.asarray(other), equal_nan=isinstance(value, np.ndarray)
            ):
                found.add(name)
    return found


def permuted(data: SiloData) -> SiloData:
    """The same inputs, with each row's labels permuted among the positions that have one."""

    def shifted(row: TokenRow) -> TokenRow:
        places = [place for place, label in enumerate(row.labels) if label != IGNORED]
        labels = list(row.labels)
        for place, source in zip(places, [*places[1:], places[0]], strict=True):
            labels[place] = row.labels[source]
        assert tuple(labels) != row.labels
        return TokenRow(row.input_ids, tuple(labels))

    return replace(data, training=tuple(map(shifted, data.training)))


CASES: dict[str, dict[str, Any]] = {
    "local": {},
    "frozen": {"silo_blocks": "frozen"},
    "int8": {"codec": "int8"},
}


@pytest.fixture
def take(new_job: NewJob, monkeypatch: pytest.MonkeyPatch) -> Take:
    """Runs a job on some silos' data and returns all that was said: see :func:`run_recorded`."""
    return partial(run_recorded, new_job, monkeypatch)


class TestOtherText:
    @pytest.mark.parametrize("case", CASES)
    def test_changes_only_activations_gradients_losses_and_norms(self, case: str, take: Take) -> None:
        other = data_of("b", text="other")
        one, two = (
            take(data_of("a", text=text), other, **CASES[case]) for text in ("a diagnosis", "a recipe")
        )
        for silo in "ab":
            found = differing_fields(one.recorder.until_trained(silo), two.recorder.until_trained(silo))
            assert found <= OF_TEXT
        assert "Activations.hidden" in differing_fields(
            one.recorder.until_trained("a"), two.recorder.until_trained("a")
        )

    def test_changes_no_size_order_or_count_over_a_whole_run(self, take: Take) -> None:
        shape = {"rounds": 2, "steps_per_round": 3, "evaluation": {"every_rounds": 1, "batch_size": 2}}
        one, two = (
            take(data_of("a", text=text), data_of("b", text="other"), **shape)
            for text in ("a diagnosis", "a recipe")
        )
        assert {who: list(map(len, frames)) for who, frames in one.lines.frames.items()} == {
            who: list(map(len, frames)) for who, frames in two.lines.frames.items()
        }
        assert {who: list(map(len, said)) for who, said in one.recorder.said.items()} == {
            who: list(map(len, said)) for who, said in two.recorder.said.items()
        }
        assert sum(map(len, one.lines.frames.values())) > 100

    def test_other_lengths_do_change_sizes(self, take: Take) -> None:
        """The comparison above can fail, and lengths are what it would show."""
        one = take(data_of("a", text="a diagnosis"))
        longer = silo_data("a", sft_rows("longer", lengths=[12] * 6), sft_rows("heldout", lengths=[5, 8, 3]))
        two = take(longer)
        assert [len(f) for f in one.lines.frames["a", "silo"]] != [
            len(f) for f in two.lines.frames["a", "silo"]
        ]


class TestPermutedLabels:
    @pytest.mark.parametrize("case", CASES)
    def test_change_only_gradients_losses_and_norms(self, case: str, take: Take) -> None:
        data = data_of("a", text="a diagnosis")
        one, two = (take(each, data_of("b", text="other"), **CASES[case]) for each in (data, permuted(data)))
        found = differing_fields(one.recorder.until_trained("a"), two.recorder.until_trained("a"))
        assert found <= OF_LABELS
        assert "GradHidden.grad" in found
        # Another silo is told of them by nothing but the norms of the trunk, which learns from both.
        assert differing_fields(one.recorder.until_trained("b"), two.recorder.until_trained("b")) == {
            "Outcome.norms_trunk"
        }


# Mutants: parties that smuggle a label out. Each must be noticed.


class WhisperingTrainer(SiloTrainer):
    """Hides a label in the activations' last bits."""

    def bottom_forward(self, batch: TokenBatch, key: StepKey) -> Tensor:
        hidden_ND = super().bottom_forward(batch, key)
        labels = batch.labels_BT[batch.labels_BT != IGNORED]
        return hidden_ND + 1e-6 * float(labels[0])


class LabelInCount(SiloProtocol):
    """Says how many label tokens there are, in a number that counts something else, too."""

    label = 0

    def send(self, message: Message) -> None:
        if isinstance(message, Activations):
            message = replace(message, num_label_tokens=message.num_label_tokens + self.label)
        super().send(message)


class TestMutants:
    def test_a_label_in_the_activations_is_noticed(self, take: Take) -> None:
        data = data_of("a", text="a diagnosis")
        one, two = (take(each, trainer=WhisperingTrainer) for each in (data, permuted(data)))
        found = differing_fields(one.recorder.until_trained("a"), two.recorder.until_trained("a"))
        assert found - OF_LABELS == {"Activations.hidden", "Hidden.hidden"}

    def test_a_label_in_a_count_is_noticed(self, take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
        data = data_of("a", text="a diagnosis")
        takes = []
        for each in (data, permuted(data)):
            first = next(label for label in each.training[0].labels if label != IGNORED)
            monkeypatch.setattr(LabelInCount, "label", first)
            takes.append(take(each, silo=LabelInCount))
        found = differing_fields(takes[0].recorder.until_trained("a"), takes[1].recorder.until_trained("a"))
        assert found - OF_LABELS >= {"Activations.num_label_tokens"}

    def test_a_message_with_a_field_more_cannot_be_said(self) -> None:
        @dataclass(frozen=True, kw_only=True, eq=False, repr=False)
        class Labelled(TurnResult):
            label: int

        with pytest.raises(UnlistedError, match="only the closed list"):
            encode_message(Labelled(voided=False, label=7), codec=Codec.FP32)

    def test_bytes_behind_a_message_cannot_be_read(self) -> None:
        encoded = encode_message(TurnResult(voided=False), codec=Codec.FP32) + b"\x07"
        with pytest.raises(MessageError):
            decode_message(encoded, direction=Direction.TRUNK_TO_SILO)
