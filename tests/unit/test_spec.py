import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitlearn.errors import SpecError, UnservedError
from splitlearn.spec import MAX_SPEC_BYTES, JobSpec, LoraAdapter


def fields(**changes: Any) -> dict[str, Any]:
    silos = [{"name": name, "dataset": "notes"} for name in ("north", "south")]
    return {"model": "tiny", "silos": silos, **changes}


class TestParse:
    def test_fills_in_every_default(self) -> None:
        spec = JobSpec.parse(fields())
        assert spec.schedule == "client-batching"
        assert spec.silo_blocks == "frozen"
        assert isinstance(spec.adapter, LoraAdapter)

    def test_takes_json_text_as_well(self) -> None:
        assert JobSpec.parse(json.dumps(fields())) == JobSpec.parse(fields())
        assert JobSpec.parse(json.dumps(fields()).encode()) == JobSpec.parse(fields())

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"lerning_rate": {}}, "lerning_rate: unknown field; remove it"),
            ({"keep_best": True}, "keep_best: unknown field; evaluation.keep_best may be meant: remove it"),
            ({"peak": 1e-3}, "peak: unknown field; learning_rate.peak may be meant: remove it"),
            ({"silos": [{"name": "north", "dataset": "d", "cut": {"botom_layers": 1}}]}, "botom_layers"),
            ({"silos": []}, "silos"),
            ({"silos": [{"name": "North", "dataset": "d"}]}, r"silos\.0\.name.*'North'"),
            ({"silos": [{"name": "a", "dataset": "d"}] * 2}, "'a' is listed twice"),
            ({"batch_size": 0}, "batch_size.*greater than or equal to 1; got 0"),
            ({"max_grad_norm": float("nan")}, "max_grad_norm"),
            ({"learning_rate": {"peak": -1}}, r"learning_rate\.peak"),
            ({"adapter": {"kind": "lora", "dropout": 1.0}}, "dropout"),
            ({"adapter": {"kind": "prefix"}}, "adapter"),
            ({"task": {"kind": "choice", "answers": {"0": "only"}}}, "answers"),
            (
                {"task": {"kind": "causal-lm", "text": "no {{}}"}},
                r"text: .*names no column.*\{text\}; got 'no",
            ),
            ({"task": {"kind": "sft", "answer": "yes"}}, r"answer: .*names no column.*; got 'yes'"),
            (
                {"task": {"kind": "choice", "prompt": "So:", "answers": {"0": "a", "1": "b"}}},
                r"prompt: .*names no column.*; got 'So:'",
            ),
            ({"spec_version": 2}, "spec_version"),
            ({"min_silos": 3}, "min_silos: 3 is more than the 2 silos"),
            ({"turn_steps": 2}, "turn_steps: 2 has a meaning only with schedule 'serial'"),
            ({"turn_steps": 99, "schedule": "serial"}, "turn_steps: 99 is more than steps_per_round 10"),
            ({"model": ""}, "model"),
            ({"rounds": "many"}, "rounds"),
            ({"evaluation": {"every_rounds": 1, "keep_best": "yes"}}, r"keep_best: .*boolean; got 'yes'"),
            ({"evaluation": {"before_training": 0}}, r"before_training: .*boolean; got 0"),
            ({"adapter": {"kind": "lora", "freeze_a": "no"}}, r"freeze_a: .*boolean; got 'no'"),
            ({"gradient_checkpointing": 1}, r"gradient_checkpointing: .*boolean; got 1"),
        ],
    )
    def test_refuses_by_name(self, changes: dict[str, Any], says: str) -> None:
        with pytest.raises(SpecError, match=says):
            JobSpec.parse(fields(**changes))

    def test_takes_a_prompt_without_a_column_before_an_answer_with_one(self) -> None:
        JobSpec.parse(fields(task={"kind": "sft", "prompt": "Write a note:", "answer": "{note}"}))

    def test_names_every_wrong_field(self) -> None:
        with pytest.raises(SpecError, match="rounds") as caught:
            JobSpec.parse(fields(rounds=0, batch_size=0))
        assert "batch_size" in caught.value.message

    def test_does_not_read_a_huge_document(self) -> None:
        with pytest.raises(SpecError, match=str(MAX_SPEC_BYTES)):
            JobSpec.parse(b" " * (MAX_SPEC_BYTES + 1))

    @given(st.binary(max_size=200) | st.text(max_size=200))
    def test_no_text_raises_anything_else(self, text: bytes | str) -> None:
        with pytest.raises(SpecError):
            JobSpec.parse(text)

    @given(
        st.dictionaries(st.sampled_from(sorted(JobSpec.model_fields)), st.none() | st.integers() | st.text())
    )
    def test_no_values_raise_anything_else(self, changes: dict[str, Any]) -> None:
        try:
            spec = JobSpec.parse(fields(**changes))
        except SpecError:
            return
        assert JobSpec.parse(spec.canonical_bytes()) == spec


class TestDigest:
    def test_canonical_bytes_are_a_fixed_point(self) -> None:
        spec = JobSpec.parse(fields(learning_rate={"peak": 1e-5}, name="jöb".replace("ö", "o")))
        assert JobSpec.parse(spec.canonical_bytes()).canonical_bytes() == spec.canonical_bytes()

    def test_does_not_depend_on_the_order_of_fields_or_on_spelled_out_defaults(self) -> None:
        backwards = dict(reversed(list(fields(rounds=1).items())))
        assert JobSpec.parse(backwards).digest() == JobSpec.parse(fields()).digest()

    def test_any_change_changes_it(self) -> None:
        changes: list[dict[str, Any]] = [
            {},
            {"seed": 1},
            {"rounds": 2},
            {"codec": "int8"},
            {"adapter": {"kind": "full"}},
            {"silos": fields()["silos"][::-1]},
        ]
        assert len({JobSpec.parse(fields(**change)).digest() for change in changes}) == len(changes)

    def test_is_what_every_version_of_this_schema_computes(self) -> None:
        # A fixed value: parties of different releases must agree on the digest of one document.
        assert JobSpec.parse(fields()).digest().hex() == (
            "3b5937e55905a4f755d6a9050cefd87a3231b465d9744efa5b80bd6edf487ab2"
        )


THREE = [{"name": name, "dataset": "d"} for name in "abc"]


class TestAveraging:
    @pytest.mark.parametrize(
        ("changes", "sentence"),
        [
            ({"silo_blocks": "averaged"}, "needs at least 3 silos, the roster has 2"),
            ({"averaging": {"every_steps": 2}}, "has a meaning only with silo_blocks 'averaged'"),
            (
                {
                    "silo_blocks": "averaged",
                    "silos": THREE,
                    "schedule": "serial",
                    "averaging": {"every_steps": 2},
                },
                "has no meaning with schedule 'serial'",
            ),
            (
                {"silo_blocks": "averaged", "silos": THREE, "averaging": {"every_steps": 11}},
                r"every_steps: 11 \(averaging\) is more than steps_per_round 10",
            ),
            ({"averaging": {"fraction_bits": 31}}, "fraction_bits"),
        ],
    )
    def test_refuses_what_cannot_be_averaged(self, changes: dict[str, Any], sentence: str) -> None:
        with pytest.raises(SpecError, match=sentence):
            JobSpec.parse(fields(**changes))

    def test_is_served(self) -> None:
        JobSpec.parse(fields(silo_blocks="averaged", silos=THREE)).refuse_unserved()

    def test_changes_the_digest_only_where_it_is_asked_for(self) -> None:
        spec = JobSpec.parse(fields(silos=THREE, silo_blocks="averaged"))
        assert b"averaging" not in spec.canonical_bytes()
        other = JobSpec.parse(fields(silos=THREE, silo_blocks="averaged", averaging={"moments": "reset"}))
        assert JobSpec.parse(other.canonical_bytes()) == other
        assert other.digest() != spec.digest()
        lora = JobSpec.parse(fields(adapter={"kind": "lora", "freeze_a": True}))
        assert JobSpec.parse(lora.canonical_bytes()) == lora
        assert b"freeze_a" not in JobSpec.parse(fields()).canonical_bytes()


class TestReplicas:
    @pytest.mark.parametrize(
        ("changes", "sentence"),
        [
            ({"schedule": "hierarchical"}, "replicas: 1 is too few for schedule 'hierarchical'"),
            (
                {"schedule": "hierarchical", "replicas": 3},
                "replicas: 3 is more than the 2 silos of the roster",
            ),
            ({"replicas": 2}, "replicas: 2 has a meaning only with schedule 'hierarchical' or 'auto'"),
            ({"replica_schedule": "serial"}, "replica_schedule: 'serial' has a meaning only with"),
            (
                {"replica_moments": "kept", "schedule": "serial"},
                "replica_moments: 'kept' has a meaning only with",
            ),
            (
                {"schedule": "hierarchical", "replicas": 2, "turn_steps": 2},
                "turn_steps: 2 has a meaning only with",
            ),
            (
                {
                    "schedule": "hierarchical",
                    "replicas": 2,
                    "silos": [{"name": name, "dataset": "d"} for name in "abc"],
                    "silo_blocks": "averaged",
                    "averaging": {"every_steps": 2},
                },
                "every_steps: 2 .* no meaning with schedule 'hierarchical', whose replicas meet",
            ),
        ],
    )
    def test_are_refused_by_name(self, changes: dict[str, Any], sentence: str) -> None:
        with pytest.raises(SpecError, match=sentence):
            JobSpec.parse(fields(**changes))

    def test_are_served(self) -> None:
        replicas = {"schedule": "hierarchical", "replicas": 2}
        JobSpec.parse(fields(**replicas, replica_schedule="serial", turn_steps=2)).refuse_unserved()
        JobSpec.parse(fields(**replicas, silo_blocks="averaged", silos=THREE)).refuse_unserved()

    def test_change_the_digest_only_where_they_are_asked_for(self) -> None:
        assert b"replica" not in JobSpec.parse(fields()).canonical_bytes()
        spec = JobSpec.parse(fields(schedule="hierarchical", replicas=2, replica_moments="kept"))
        assert JobSpec.parse(spec.canonical_bytes()) == spec


class TestWatchedEvaluations:
    @pytest.mark.parametrize(
        ("evaluation", "sentence"),
        [
            ({"keep_best": True}, "keep_best: has a meaning only where rounds are evaluated"),
            ({"patience_evaluations": 2}, "patience_evaluations: has a meaning only where rounds"),
            ({"every_rounds": 1, "min_delta": 0.1}, r"min_delta: 0\.1 has a meaning only with keep_best"),
        ],
    )
    def test_refuses_what_would_decide_nothing(self, evaluation: dict[str, Any], sentence: str) -> None:
        with pytest.raises(SpecError, match=sentence):
            JobSpec.parse(fields(evaluation=evaluation))

    def test_change_the_digest_only_where_they_are_asked_for(self) -> None:
        asked = JobSpec.parse(fields(evaluation={"every_rounds": 1, "keep_best": True}))
        assert JobSpec.parse(asked.canonical_bytes()) == asked
        plain = JobSpec.parse(fields(evaluation={"every_rounds": 1, "keep_best": False, "min_delta": 0}))
        assert not {b"keep_best", b"min_delta"} & set(plain.canonical_bytes().split(b'"'))
        assert asked.digest() != plain.digest()


class TestRefuseUnserved:
    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            (
                {"silo_blocks": "averaged", "silos": THREE, "on_lost_silo": "continue"},
                r"silo_blocks with on_lost_silo: \('averaged', 'continue'\)",
            ),
            ({"schedule": "auto"}, "schedule: 'auto'"),
            ({"start_from": "runs/first"}, "start_from: 'runs/first'"),
            ({"privacy": {"noise": 0.1}}, r"privacy\.noise: 0\.1"),
            ({"privacy": {"clip": 1.0}}, r"privacy\.clip: 1\.0"),
            ({"release": "project"}, "release: 'project'"),
            ({"silos": [{"name": n, "dataset": "d"} for n in "abc"], "min_silos": 2}, "min_silos: 2"),
            (
                {
                    "silos": [
                        {"name": "a", "dataset": "d"},
                        {"name": "b", "dataset": "d", "cut": {"bottom_layers": 2}},
                    ]
                },
                r"silos\.cut",
            ),
        ],
    )
    def test_names_the_field_and_the_remedy(self, changes: dict[str, Any], field: str) -> None:
        with pytest.raises(UnservedError, match=f"{field}.*is not served yet; "):
            JobSpec.parse(fields(**changes)).refuse_unserved()

    def test_serves_fewer_silos_where_a_job_goes_on_without_some(self) -> None:
        silos = [{"name": name, "dataset": "d"} for name in "abc"]
        JobSpec.parse(fields(silos=silos, min_silos=2, on_lost_silo="continue")).refuse_unserved()

    def test_serves_the_rest(self) -> None:
        JobSpec.parse(fields(schedule="serial", turn_steps=5, silo_blocks="local")).refuse_unserved()


class TestTasks:
    @pytest.mark.parametrize(
        ("task", "says"),
        [
            ({"kind": "choice"}, "neither answers nor candidates"),
            (
                {"kind": "choice", "answers": {"0": "a", "1": "b"}, "candidates": "c"},
                "both answers and candidates",
            ),
            ({"kind": "choice", "answers": {"0": "a", "1": "b"}, "positive": "2"}, "positive: '2' is no key"),
            ({"kind": "choice", "candidates": "c", "candidate": "{x}"}, r"does not name \{candidate\}"),
            (
                {"kind": "choice", "answers": {"0": "{a", "1": "b"}},
                r"answers\.0: .*character 1: a '\{' is never",
            ),
            (
                {"kind": "sft", "prompt": "{a.b}"},
                r"sft\.prompt: template .*character 1: .*not a plain column",
            ),
            ({"kind": "sft", "chat": {"system": "{end}"}}, r"chat\.system: .*\{end\} without"),
            ({"kind": "summarise", "metrics": ["meteor"]}, "metrics"),
        ],
    )
    def test_are_refused_by_name(self, task: dict[str, Any], says: str) -> None:
        with pytest.raises(SpecError, match=says):
            JobSpec.parse(fields(task=task))

    def test_scores_of_generated_texts_are_served(self) -> None:
        JobSpec.parse(fields(task={"kind": "summarise", "metrics": ["rouge-1"]})).refuse_unserved()

    @pytest.mark.parametrize(
        "task",
        [
            {"kind": "sft", "prompt": "{prompt}", "answer": "{answer}"},
            {"kind": "choice", "prompt": "{text}", "label": "label", "answers": {"0": "a", "1": "b"}},
        ],
    )
    def test_what_is_not_said_is_not_written_out(self, task: dict[str, Any]) -> None:
        assert JobSpec.parse(fields(task=task)).model_dump(mode="json")["task"] == task

    def test_what_is_said_is(self) -> None:
        task = {"kind": "sft", "prompt": "{p}", "answer": "{a}", "chat": {"messages": "m"}}
        spec = JobSpec.parse(fields(task=task))
        assert spec.model_dump(mode="json")["task"] == task
        assert JobSpec.parse(spec.canonical_bytes()) == spec


class TestSteps:
    def test_serial_steps_count_for_every_silo(self) -> None:
        assert JobSpec.parse(fields(rounds=3, steps_per_round=4)).total_steps == 12
        assert JobSpec.parse(fields(rounds=3, steps_per_round=4, schedule="serial")).total_steps == 24

    def test_finds_a_silo(self) -> None:
        assert JobSpec.parse(fields()).silo_index("south") == 1
        with pytest.raises(SpecError, match=r"no silo 'west'.*north, south"):
            JobSpec.parse(fields()).silo_index("west")
