from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from splitlearn.errors import SpecError, UnservedError
from splitlearn.simulation.cli import app
from splitlearn.simulation.demo_inputs import plan_job
from splitlearn.simulation.demo_options import DemoOptions, file_silo_names, name_of, parse_answers

FILE = Path("reviews.tsv")


class TestDefaults:
    def test_three_silos_batch_their_frozen_blocks_in_fp32(self) -> None:
        spec = plan_job(DemoOptions())
        assert [silo.name for silo in spec.silos] == ["harbour", "hillside", "riverside"]
        assert (spec.schedule, spec.silo_blocks, spec.codec, spec.seed) == (
            "client-batching",
            "frozen",
            "fp32",
            0,
        )
        assert DemoOptions().threads == 1
        assert DemoOptions().out_dir == Path("runs/demo")

    def test_own_notes_are_learned_as_answers(self) -> None:
        assert plan_job(DemoOptions()).task.kind == "sft"

    def test_a_file_is_learned_whole(self) -> None:
        assert plan_job(DemoOptions(data=(FILE,))).task.kind == "causal-lm"

    def test_warm_up_is_a_twentieth_of_the_trunks_steps(self) -> None:
        options = DemoOptions(rounds=5, steps_per_round=20)
        assert plan_job(options).learning_rate.warmup_steps == 5
        assert plan_job(replace(options, schedule="serial")).learning_rate.warmup_steps == 15


class TestSilos:
    def test_one_file_is_dealt_to_numbered_silos(self) -> None:
        assert file_silo_names(DemoOptions(data=(FILE,), silos=2)) == ("silo-1", "silo-2")

    def test_several_files_name_their_silos(self) -> None:
        options = DemoOptions(data=(Path("a/North Ward.jsonl"), Path("south.csv")))
        assert file_silo_names(options) == ("north-ward", "south")
        assert [silo.dataset for silo in plan_job(options).silos] == ["north-ward", "south"]

    def test_equal_file_names_get_a_number(self) -> None:
        options = DemoOptions(data=(Path("a/x.txt"), Path("b/x.txt"), Path("y.txt")))
        assert file_silo_names(options) == ("x-1", "x-2", "y")

    def test_refuses_other_counts(self) -> None:
        with pytest.raises(SpecError, match="--silos 3 but 2 data files"):
            file_silo_names(DemoOptions(data=(FILE, FILE), silos=3))

    def test_refuses_more_than_the_own_notes_serve(self) -> None:
        with pytest.raises(SpecError, match=r"--silos 65: .*at most 64 silos"):
            plan_job(DemoOptions(silos=65))

    def test_refuses_more_files_than_a_job_has_silos(self) -> None:
        with pytest.raises(SpecError, match="--data given 257 times: a job has at most 256 silos"):
            plan_job(DemoOptions(data=(FILE,) * 257))

    def test_the_option_itself_is_limited(self) -> None:
        shown = CliRunner().invoke(app, ["demo", "--silos", "500000000", "--data", "rows.txt"])
        assert shown.exit_code == 2
        assert "--silos" in shown.stderr

    @pytest.mark.parametrize("stem", ["", "...", "Überall", "x" * 90, "-a-"])
    def test_any_file_name_makes_a_name(self, stem: str) -> None:
        name = name_of(Path(f"{stem}.txt"))
        assert plan_job(DemoOptions(data=(FILE,), name=name)).name == name


class TestTask:
    def test_prompt_is_the_text_of_causal_lm(self) -> None:
        spec = plan_job(DemoOptions(data=(FILE,), prompt=r"{title}\n{body}"))
        assert spec.task.model_dump() == {"kind": "causal-lm", "text": "{title}\n{body}"}

    def test_answers_is_the_answers_template_of_sft(self) -> None:
        spec = plan_job(DemoOptions(data=(FILE,), task="sft", prompt="Q {q} A", answers=" {a}"))
        assert spec.task.model_dump() == {"kind": "sft", "prompt": "Q {q} A", "answer": " {a}"}

    def test_answers_are_the_candidates_of_choice(self) -> None:
        spec = plan_job(DemoOptions(data=(FILE,), task="choice", answers="0= bad,1= good"))
        assert spec.task.model_dump() == {
            "kind": "choice",
            "prompt": "{text}",
            "label": "label",
            "answers": {"0": " bad", "1": " good"},
        }

    def test_choice_needs_candidates(self) -> None:
        with pytest.raises(SpecError, match="needs the candidate answers"):
            plan_job(DemoOptions(data=(FILE,), task="choice"))

    def test_own_notes_bring_their_candidates(self) -> None:
        task = plan_job(DemoOptions(task="choice")).task
        assert task.kind == "choice"
        assert task.label == "urgency"

    def test_causal_lm_has_no_answers(self) -> None:
        with pytest.raises(SpecError, match="--answers has no meaning"):
            plan_job(DemoOptions(data=(FILE,), answers="0=a,1=b"))


class TestAnswers:
    def test_keeps_the_candidates_blanks(self) -> None:
        assert parse_answers("0= bad , 1=good") == {"0": " bad ", "1": "good"}

    def test_json_may_hold_commas(self) -> None:
        assert parse_answers('{"0": " no, never", "1": " yes"}') == {"0": " no, never", "1": " yes"}

    @pytest.mark.parametrize("text", ["", "bad,good", "0=,1=x", "=x", '{"0": 1}', "{0: x}"])
    def test_refuses_what_is_no_pair(self, text: str) -> None:
        with pytest.raises(SpecError, match="--answers"):
            parse_answers(text)

    def test_refuses_a_label_twice(self) -> None:
        for text in ("0=a,0=b", '{"0": "a", "0": "b"}'):
            with pytest.raises(SpecError, match="'0' occurs twice"):
                parse_answers(text)


class TestUnserved:
    @pytest.mark.parametrize(
        ("options", "field"),
        [
            (DemoOptions(silo_blocks="averaged"), "silo_blocks"),
            (DemoOptions(schedule="hierarchical"), "schedule"),
            (DemoOptions(schedule="auto"), "schedule"),
        ],
    )
    def test_is_planned_but_refused_by_name(self, options: DemoOptions, field: str) -> None:
        with pytest.raises(UnservedError, match=field):
            plan_job(options).refuse_unserved()


class TestContradictions:
    def test_nothing_is_kept_of_a_run_without_processes(self) -> None:
        with pytest.raises(SpecError, match=r"--keep .* --in-process"):
            plan_job(DemoOptions(keep=True, in_process=True))


class TestLimits:
    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            (
                DemoOptions(rounds=1_000_000, steps_per_round=1000),
                "--rounds 1000000 with --steps-per-round 1000 are 1000000000 steps, the limit is 200000000",
            ),
            (DemoOptions(rounds=1_000_001), "--rounds 1000001 is above the limit; give 1000000 or less"),
            (DemoOptions(bottom_layers=5000), "--bottom-layers 5000 is above the limit; give 4096 or less"),
            (DemoOptions(learning_rate=0), "--learning-rate 0 is below the limit; give more than 0"),
            (DemoOptions(name="Foo!"), "--name 'Foo!' is no name: 1 to 64 lower-case letters"),
            (DemoOptions(prompt=""), "--prompt is empty"),
            (DemoOptions(turn_steps=3), "--turn-steps 3 has a meaning only with --schedule 'serial'"),
            (
                DemoOptions(data=(FILE,), task="choice", answers="0=a"),
                "--answers lists too few candidates (1), a choice has at least 2; add one",
            ),
            (
                DemoOptions(data=(FILE,), task="choice", answers=",".join(f"{n}=x" for n in range(257))),
                "--answers lists 257 candidates, the limit is 256; leave some out",
            ),
        ],
    )
    def test_name_the_flag(self, options: DemoOptions, sentence: str) -> None:
        with pytest.raises(SpecError) as caught:
            plan_job(options)
        assert caught.value.message.startswith(sentence)
        assert "\n" not in caught.value.message
