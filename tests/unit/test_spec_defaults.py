"""What a specification says where its author left it open."""

from typing import Any

import pytest

from splitlearn.errors import SpecError, UnservedError
from splitlearn.spec import JobSpec
from splitlearn.spec_defaults import Filled, fill_open_fields

TWO = [{"name": name, "dataset": "notes"} for name in ("north", "south")]
THREE = [*TWO, {"name": "west", "dataset": "notes"}]
FULL = {"kind": "full"}


def fill(*, on_platform: bool = True, **fields: Any) -> Filled:
    written = {"model": "m", "silos": THREE, "adapter": FULL, **fields}
    return fill_open_fields(written, on_platform=on_platform)


class TestSiloBlocks:
    def test_of_three_silos_are_averaged(self) -> None:
        filled = fill()
        assert (filled.spec.silo_blocks, filled.notes) == ("averaged", ())
        filled.spec.refuse_unserved()

    def test_of_fewer_stay_frozen(self) -> None:
        assert fill(silos=TWO) == Filled(JobSpec.parse({"model": "m", "silos": TWO, "adapter": FULL}))
        assert fill(silos=TWO).spec.silo_blocks == "frozen"

    @pytest.mark.parametrize("blocks", ["frozen", "local", "averaged"])
    def test_are_what_the_specification_says(self, blocks: str) -> None:
        assert fill(silo_blocks=blocks).spec.silo_blocks == blocks

    def test_stand_in_the_signed_bytes(self) -> None:
        filled = fill().spec
        assert b'"silo_blocks":"averaged"' in filled.canonical_bytes()
        assert JobSpec.parse(filled.canonical_bytes()) == filled

    def test_of_a_document_that_is_read_are_what_they_were(self) -> None:
        assert JobSpec.parse({"model": "m", "silos": THREE}).silo_blocks == "frozen"

    @pytest.mark.parametrize(
        ("fields", "why"),
        [
            ({"on_lost_silo": "continue"}, "what was summed with a silo is not summed again without it"),
            ({"start_from": "runs/earlier"}, "begins at an earlier result"),
        ],
    )
    def test_stay_frozen_and_say_why_where_averaging_is_not_served(
        self, fields: dict[str, Any], why: str
    ) -> None:
        filled = fill(on_platform=False, **fields)
        assert filled.spec.silo_blocks == "frozen"
        filled.spec.refuse_unserved(on_platform=False)
        (note,) = filled.notes
        assert note.startswith("silo_blocks: 'frozen', not 'averaged' as usual with 3 silos and more: ")
        assert why in note

    @pytest.mark.parametrize(
        "fields",
        [
            {"schedule": "serial", "turn_steps": 2},
            {"schedule": "hierarchical", "replicas": 2},
            {"schedule": "auto"},
            {"schedule": "auto", "replicas": 2},
            {"averaging": {"every_steps": 2}},
            {"task": {"kind": "choice", "answers": {"0": "a", "1": "b"}}},
            {"evaluation": {"every_rounds": 1, "keep_best": True}},
        ],
    )
    def test_are_averaged_with_whatever_else_is_asked_for(self, fields: dict[str, Any]) -> None:
        assert fill(**fields).spec.silo_blocks == "averaged"

    @pytest.mark.parametrize("on_platform", [True, False])
    @pytest.mark.parametrize("schedule", ["client-batching", "serial", "hierarchical", "auto"])
    @pytest.mark.parametrize("on_lost_silo", ["wait", "continue"])
    def test_never_make_a_specification_fail(
        self, schedule: str, on_lost_silo: str, *, on_platform: bool
    ) -> None:
        fields: dict[str, Any] = {"schedule": schedule, "on_lost_silo": on_lost_silo}
        if schedule == "hierarchical":
            fields["replicas"] = 2
        spec = fill(on_platform=on_platform, **fields).spec
        closed = spec.model_copy(update={"schedule": "serial"}) if schedule == "auto" else spec
        closed.refuse_unserved(on_platform=on_platform)

    def test_are_not_what_a_wrong_specification_is_refused_for(self) -> None:
        with pytest.raises(SpecError, match="ronuds: unknown field") as refused:
            fill(ronuds=1)
        assert "silo_blocks" not in refused.value.message
        cuts = [{**silo, "cut": {"bottom_layers": number}} for number, silo in enumerate(THREE)]
        spec = fill(silos=cuts).spec
        with pytest.raises(UnservedError, match=r"silos\.cut"):
            spec.refuse_unserved()
        wrong: tuple[Any, ...] = (None, 3, "abc", [])
        for silos in wrong:
            with pytest.raises(SpecError, match="silos"):
                fill(silos=silos)


class TestAveragedLora:
    def test_is_told_that_averaging_its_halves_is_not_averaging_their_product(self) -> None:
        (note,) = fill(adapter={"kind": "lora"}).notes
        assert "adapter.freeze_a true trains B alone" in note
        assert fill(adapter={"kind": "lora"}, silo_blocks="averaged").notes == (note,)

    @pytest.mark.parametrize(
        "fields",
        [
            {"adapter": {"kind": "lora", "freeze_a": True}},
            {"adapter": {"kind": "lora"}, "silo_blocks": "local"},
            {"adapter": FULL},
        ],
    )
    def test_alone_is_told_so(self, fields: dict[str, Any]) -> None:
        assert fill(**fields).notes == ()


class TestPatience:
    @pytest.mark.parametrize(
        ("evaluation", "others"),
        [
            ({"every_rounds": 10, "patience_evaluations": 1}, "there are no others"),
            ({"every_rounds": 2, "patience_evaluations": 3}, "there are 2 others"),
            ({"every_rounds": 2, "patience_evaluations": 2, "before_training": False}, "there is 1 other"),
        ],
    )
    def test_that_never_acts_is_told_so(self, evaluation: dict[str, Any], others: str) -> None:
        (note,) = fill(rounds=5, evaluation=evaluation).notes
        assert f"between its first evaluation and its last {others}; " in note
        assert ("lower it" in note) == ("no others" not in others)

    @pytest.mark.parametrize(
        "evaluation",
        [
            {"every_rounds": 2, "patience_evaluations": 2},
            {"every_rounds": 2, "patience_evaluations": 1, "before_training": False},
            {"every_rounds": 10, "keep_best": True},
            {},
        ],
    )
    def test_that_can_act_is_not(self, evaluation: dict[str, Any]) -> None:
        assert fill(rounds=5, evaluation=evaluation).notes == ()
