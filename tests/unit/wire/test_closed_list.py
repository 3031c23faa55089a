from dataclasses import dataclass, fields, replace
from typing import Annotated, Any

import numpy as np
import pytest

from splitlearn.wire import (
    CLOSED_LIST,
    Activations,
    Codec,
    Message,
    Outcome,
    PaddingSide,
    Phase,
    TurnEnd,
    UnlistedError,
    encode_message,
)
from splitlearn.wire.schema import LIST_U32, Listed, listed_fields


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledActivations(Activations):
    """A mutant: what the silo sends anyway, and its labels."""

    labels: Annotated[tuple[int, ...], Listed(LIST_U32, "labels", "everything")]


@dataclass(frozen=True, kw_only=True)
class TokenIds:
    """A mutant: raw token ids, with a schema of their own."""

    token_ids: Annotated[tuple[int, ...], Listed(LIST_U32, "tokens", "everything")]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class LabelledOutcome(Outcome):
    """A mutant part of a listed message."""

    labels: tuple[int, ...] = (1, 2)


class TestClosedList:
    def labelled(self) -> LabelledActivations:
        return LabelledActivations(
            phase=Phase.TRAIN,
            micro_batch=0,
            num_micro_batches=1,
            lengths=(1,),
            padding_side=PaddingSide.LEFT,
            num_label_tokens=1,
            outcome=None,
            hidden=np.ones((1, 2), np.float32),
            labels=(4, 5),
        )

    def test_refuses_a_listed_type_grown_by_labels(self) -> None:
        with pytest.raises(UnlistedError, match="LabelledActivations is no message"):
            encode_message(self.labelled(), codec=Codec.FP32)

    def test_refuses_an_unlisted_type(self) -> None:
        with pytest.raises(UnlistedError, match="TokenIds is no message"):
            encode_message(TokenIds(token_ids=(1, 2)), codec=Codec.FP32)  # type: ignore[arg-type]

    def test_refuses_a_part_grown_by_labels(self) -> None:
        outcome = LabelledOutcome(norms_bottom=(), norms_trunk=(), norms_top=(), finite=True, num_tokens=1)
        with pytest.raises(UnlistedError, match=r"TurnEnd\.outcome: LabelledOutcome is not Outcome"):
            encode_message(TurnEnd(outcome=outcome, loss_sum=0.0, num_tokens=1), codec=Codec.FP32)

    def test_has_no_room_for_an_extra_attribute(self, every_message: list[Message]) -> None:
        for message in every_message:
            with pytest.raises(AttributeError):
                object.__setattr__(message, "labels", (1, 2))

    def test_refuses_an_extra_attribute_where_a_class_has_room(self, monkeypatch: pytest.MonkeyPatch) -> None:
        @dataclass(frozen=True, kw_only=True)
        class Roomy:
            round: int

        listed = replace(CLOSED_LIST[5], cls=Roomy)  # type: ignore[arg-type]
        monkeypatch.setattr("splitlearn.wire.encoding._BY_CLASS", {Roomy: listed})
        message: Any = Roomy(round=1)
        encode_message(message, codec=Codec.FP32)
        object.__setattr__(message, "labels", (1, 2))
        with pytest.raises(UnlistedError, match=r"Roomy carries \['labels'\]"):
            encode_message(message, codec=Codec.FP32)

    def test_describes_every_field(self) -> None:
        for listed in CLOSED_LIST:
            assert list(listed.fields) == [field.name for field in fields(listed.cls)]

    def test_stops_at_a_field_without_a_line(self) -> None:
        with pytest.raises(AssertionError, match="labels"):
            listed_fields(LabelledOutcome)
