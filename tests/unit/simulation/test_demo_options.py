import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from splitlearn.errors import SpecError, UnservedError
from splitlearn.presets import PRESETS
from splitlearn.simulation.cli import app
from splitlearn.simulation.demo_inputs import plan_job, read_rows
from splitlearn.simulation.demo_options import DemoOptions, file_silo_names, name_of, parse_answers
from splitlearn.spec import ChoiceTask, LoraAdapter, SummariseTask

FILE = Path("reviews.tsv")
CB_ANSWERS = "entailment= a,contradiction= b,neutral= c"


class TestDefaults:
    def test_three_silos_batch_and_average_their_blocks_in_fp32(self) -> None:
        spec = plan_job(DemoOptions())
        assert [silo.name for silo in spec.silos] == ["harbour", "hillside", "riverside"]
        assert (spec.schedule, spec.silo_blocks, spec.codec, spec.seed) == (
            "client-batching",
            "averaged",
            "fp32",
            0,
        )
        assert plan_job(DemoOptions(silos=2)).silo_blocks == "frozen"
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


class TestAveraging:
    def test_follows_its_flags(self) -> None:
        options = DemoOptions(
            silo_blocks="averaged", average_every=2, adapter="lora", freeze_a=True, steps_per_round=4
        )
        spec = plan_job(options)
        assert (spec.silo_blocks, spec.averaging.every_steps) == ("averaged", 2)
        assert spec.adapter == LoraAdapter(freeze_a=True)
        spec.refuse_unserved()

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            (DemoOptions(freeze_a=True), "--freeze-a has a meaning only with --adapter lora, not full"),
            (
                DemoOptions(average_every=2, silo_blocks="local"),
                "--average-every has a meaning only with --silo-blocks averaged",
            ),
            (
                DemoOptions(average_every=2, silos=2),
                "averaging: has a meaning only with silo_blocks 'averaged'",
            ),
            (
                DemoOptions(silo_blocks="averaged", average_every=50, steps_per_round=40),
                r"--average-every 50 \(averaging\) is more than --steps-per-round 40",
            ),
            (DemoOptions(silo_blocks="averaged", silos=2), "needs at least 3 silos, the roster has 2"),
        ],
    )
    def test_refuses_flags_without_a_meaning(self, options: DemoOptions, sentence: str) -> None:
        with pytest.raises(SpecError, match=sentence):
            plan_job(options)


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


class TestPresets:
    def test_bring_their_whole_task(self) -> None:
        options = DemoOptions(data=(FILE,), task="boolq")
        assert options.task_kind == "choice"
        assert plan_job(options).task == PRESETS["boolq"].task

    def test_can_be_overridden_part_by_part(self) -> None:
        task = plan_job(DemoOptions(data=(FILE,), task="cb", prompt="{premise}", answers=CB_ANSWERS)).task
        assert isinstance(task, ChoiceTask)
        assert (task.prompt, task.label, task.answers["neutral"]) == ("{premise}", "label", " c")

    def test_of_summaries_take_a_template_of_the_answer(self) -> None:
        task = plan_job(DemoOptions(data=(FILE,), task="xsum", answers=" {summary}!")).task
        assert isinstance(task, SummariseTask)
        assert task.answer == " {summary}!"

    def test_with_candidates_of_a_row_need_no_answers(self) -> None:
        assert plan_job(DemoOptions(data=(FILE,), task="record")).task == PRESETS["record"].task

    @pytest.mark.parametrize("task", ["boolq", "summarise"])
    def test_need_files(self, task: str) -> None:
        with pytest.raises(SpecError, match=f"--task {task} needs files"):
            plan_job(DemoOptions(task=task))

    def test_a_word_that_is_neither_kind_nor_preset_is_refused_by_name(self) -> None:
        with pytest.raises(SpecError, match=r"--task 'squad' is neither a kind of task \(causal-lm, .*boolq"):
            plan_job(DemoOptions(data=(FILE,), task="squad"))

    def test_flatten_nested_files(self, tmp_path: Path) -> None:
        path = tmp_path / "wsc.jsonl"
        row = {"text": "t", "target": {"span1_text": "a", "span2_text": "b"}, "label": True}
        path.write_text((json.dumps(row) + "\n") * 12)
        options = DemoOptions(data=(path,), task="wsc", silos=1)
        [records] = read_rows(options, plan_job(options)).by_silo.values()
        assert {record.text("span1_text") for record in records} == {"a"}


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
    def test_is_planned_but_refused_by_name(self) -> None:
        with pytest.raises(UnservedError, match="schedule"):
            plan_job(DemoOptions(schedule="auto")).refuse_unserved()


class TestTraining:
    def test_follows_its_flags(self) -> None:
        options = DemoOptions(precision="bf16", gradient_checkpointing=True, keep_best=True, patience=2)
        spec = plan_job(options)
        assert (spec.precision, spec.gradient_checkpointing) == ("bf16", True)
        found = spec.evaluation
        assert (found.every_rounds, found.keep_best, found.patience_evaluations) == (1, True, 2)
        assert plan_job(replace(options, evaluate_every=3)).evaluation.every_rounds == 3
        assert not plan_job(DemoOptions()).evaluation.watches

    def test_decide_with_replicas_too(self) -> None:
        spec = plan_job(DemoOptions(schedule="hierarchical", replicas=2, keep_best=True))
        spec.refuse_unserved()
        assert spec.meeting_evaluates


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
