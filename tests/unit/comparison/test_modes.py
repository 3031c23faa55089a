import pytest

from splitlearn.comparison.modes import USUAL_MODES, LeftOut, job_of, parse_modes, usual_modes
from splitlearn.errors import SpecError
from splitlearn.evaluation_spec import EvaluationSpec
from tests.unit.comparison.builders import job, modes

FOUR = ("a", "b", "c", "d")


class TestParseModes:
    def test_lists_every_silo_alone(self) -> None:
        names = [mode.name for mode in parse_modes(USUAL_MODES, silos=FOUR)]
        assert names == [
            "centralised",
            "serial",
            "client-batching",
            "hierarchical-2",
            "hierarchical-4",
            "alone:a",
            "alone:b",
            "alone:c",
            "alone:d",
        ]

    def test_takes_each_once(self) -> None:
        found = parse_modes(["alone:b", " serial", "alone", "serial"], silos=FOUR)
        assert [mode.name for mode in found] == ["alone:b", "serial", "alone:a", "alone:c", "alone:d"]

    @pytest.mark.parametrize(
        ("name", "sentence"),
        [
            ("hierarchical-5", "hierarchical-5: 5 replicas are more than the 4 silos"),
            ("hierarchical-1", "hierarchical-1: 1 is no number of replicas"),
            ("hierarchical", "unknown mode 'hierarchical'"),
            ("central", "unknown mode 'central'"),
            ("alone:e", "alone:e: no silo 'e' in the roster; it has a, b, c, d"),
            ("", "unknown mode ''"),
        ],
    )
    def test_refuses_by_name(self, name: str, sentence: str) -> None:
        with pytest.raises(SpecError) as caught:
            parse_modes(["serial", name], silos=FOUR)
        assert caught.value.message.startswith(sentence)

    def test_says_which_modes_so_many_silos_can_have(self) -> None:
        with pytest.raises(SpecError) as caught:
            parse_modes(USUAL_MODES, silos=FOUR[:3])
        assert "--modes centralised,serial,client-batching,hierarchical-2,alone" in caught.value.message


class TestUsualModes:
    def test_of_four_silos_are_all(self) -> None:
        assert usual_modes(silos=FOUR) == (parse_modes(USUAL_MODES, silos=FOUR), ())

    @pytest.mark.parametrize("num_silos", [2, 3])
    def test_of_fewer_leave_out_replicas_that_are_more_than_the_silos(self, num_silos: int) -> None:
        silos = FOUR[:num_silos]
        found, left_out = usual_modes(silos=silos)
        kept = ["centralised", "serial", "client-batching", "hierarchical-2"]
        assert [mode.name for mode in found] == [*kept, *(f"alone:{silo}" for silo in silos)]
        reason = f"more replicas than the {num_silos} silos of the roster"
        assert left_out == (LeftOut("hierarchical-4", reason),)


class TestJobOf:
    BASE = job(
        silos=FOUR,
        silo_blocks="averaged",
        averaging={"every_steps": 2},
        batch_size=3,
        learning_rate={"peak": 1e-3, "warmup_steps": 5},
    )

    def test_central_and_batching_differ_by_the_seed_and_who_evaluates_before_training(self) -> None:
        whole, split = (
            job_of(modes(name, silos=FOUR)[0], self.BASE, seed=7)
            for name in ("centralised", "client-batching")
        )
        assert whole == self.BASE.model_copy(update={"seed": 7})
        once = self.BASE.evaluation.model_copy(update={"before_training": False})
        assert split == whole.model_copy(update={"evaluation": once})

    def test_all_evaluate_before_training_where_that_may_be_the_result(self) -> None:
        base = self.BASE.model_copy(update={"evaluation": EvaluationSpec(every_rounds=1, keep_best=True)})
        assert job_of(modes("serial", silos=FOUR)[0], base, seed=7).evaluation.before_training

    def test_serial_warms_up_over_the_same_share_and_averages_at_rounds_ends(self) -> None:
        made = job_of(
            modes("serial", silos=FOUR)[0], self.BASE, seed=7, own_fields={"serial": {"turn_steps": 2}}
        )
        assert (made.schedule, made.turn_steps) == ("serial", 2)
        assert made.learning_rate.warmup_steps == 20
        assert made.averaging.every_steps == 0
        assert made.silo_blocks == "averaged"
        assert made.total_steps == 4 * self.BASE.total_steps

    def test_replicas_average_at_rounds_ends(self) -> None:
        made = job_of(modes("hierarchical-2", silos=FOUR)[0], self.BASE, seed=7)
        assert (made.schedule, made.replicas) == ("hierarchical", 2)
        assert made.averaging.every_steps == 0
        assert made.total_steps == self.BASE.total_steps
        assert made.learning_rate == self.BASE.learning_rate

    def test_replicas_of_silos_in_turns_warm_up_over_the_same_share(self) -> None:
        own = {"hierarchical": {"replica_schedule": "serial", "replica_moments": "kept"}}
        made = job_of(modes("hierarchical-3", silos=FOUR)[0], self.BASE, seed=7, own_fields=own)
        assert (made.replica_schedule, made.replica_moments) == ("serial", "kept")
        assert made.total_steps == 2 * self.BASE.total_steps  # the largest replica has two silos
        assert made.learning_rate.warmup_steps == 10

    def test_alone_takes_as_many_steps_on_as_many_rows(self) -> None:
        made = job_of(modes("alone:c", silos=FOUR)[0], self.BASE, seed=7)
        assert [silo.name for silo in made.silos] == ["c"]
        assert made.batch_size == 12
        assert made.total_steps == self.BASE.total_steps
        assert made.silo_blocks == "local"

    def test_alone_trains_what_the_others_train(self) -> None:
        frozen = job(silos=FOUR)
        assert job_of(modes("alone:c", silos=FOUR)[0], frozen, seed=7).silo_blocks == "frozen"

    def test_names_the_mode_that_cannot_have_these_fields(self) -> None:
        with pytest.raises(SpecError) as caught:
            job_of(
                modes("serial", silos=FOUR)[0], self.BASE, seed=7, own_fields={"serial": {"turn_steps": 99}}
            )
        assert caught.value.message.startswith("serial: turn_steps: 99 is more than")

    def test_refuses_a_batch_that_a_silo_alone_cannot_have(self) -> None:
        with pytest.raises(SpecError, match="alone:a: batch_size"):
            job_of(modes("alone:a", silos=FOUR)[0], job(silos=FOUR, batch_size=4096), seed=0)
