"""``trunkline jobs results``: the newest numbers of each silo, and what is withheld."""

from typing import Any

from tests.unit.backend.cli.conftest import Terminal
from tests.unit.backend.jobs.conftest import Federation

CHOICE = {"kind": "choice", "answers": {"no": " no", "yes": " yes"}}


def send(federation: Federation, silo: str, job_id: str, *, number: int, **values: float) -> None:
    points = [{"name": name, "round": number, "step": -1, "value": value} for name, value in values.items()]
    federation.parties[silo].ok("POST", "/metrics", {"job": job_id, "metrics": points})


def choosing(federation: Federation, **fields: Any) -> str:
    """A job of a choice, with data sets that serve any task."""
    announced = {"name": "notes", "task": "any", "num_rows": 7, "schema_digest": "00" * 32}
    for silo in ("north", "south"):
        federation.parties[silo].ok("PUT", "/silo/datasets", {"datasets": [announced]})
    return federation.running(task=CHOICE, **fields)


def shown(admin: Terminal, job_id: str) -> dict[str, dict[str, Any]]:
    return {row["silo"]: row for row in admin("jobs", "results", job_id, "--json").json}


class TestResults:
    def test_are_the_newest_of_each_silo(self, admin: Terminal, federation: Federation) -> None:
        job_id = choosing(federation)
        send(federation, "north", job_id, number=0, rows=90, rows_truncated=4, tokens_cut_left=17)
        for number, loss in ((2, 1.5), (1, 2.0)):
            send(federation, "north", job_id, number=number, eval_rows=9, eval_loss=loss, accuracy=0.5)
        found = shown(admin, job_id)
        assert (found["north"]["round"], found["north"]["eval_loss"]) == (2, 1.5)
        assert (found["north"]["rows_truncated"], found["north"]["tokens_cut_left"]) == (4, 17)
        assert (found["south"]["round"], found["south"]["eval_loss"], found["south"]["rows"]) == (
            None,
            None,
            None,
        )

    def test_are_of_the_best_round_where_the_job_keeps_it(
        self, admin: Terminal, federation: Federation
    ) -> None:
        job_id = choosing(federation, evaluation={"every_rounds": 1, "keep_best": True})
        for number, loss in enumerate((3.0, 1.5, 2.0)):
            send(federation, "north", job_id, number=number, eval_rows=9, eval_loss=loss)
        send(federation, "worker", job_id, number=1, best_round=1)
        send(federation, "worker", job_id, number=2, best_round=1)
        found = shown(admin, job_id)["north"]
        assert (found["round"], found["eval_loss"], found["eval_loss_before"]) == (1, 1.5, 3.0)
        text = admin("jobs", "show", job_id).out
        assert "best round so far" in text
        assert "0 of 3 committed" in text

    def test_are_of_no_round_that_the_job_went_back_before(
        self, admin: Terminal, federation: Federation
    ) -> None:
        job_id = choosing(federation, evaluation={"every_rounds": 1, "keep_best": True})
        send(federation, "north", job_id, number=0, rows=90)
        for number, loss in enumerate((3.0, 1.5, 2.0)):
            send(federation, "north", job_id, number=number, eval_rows=9, eval_loss=loss)
        send(federation, "worker", job_id, number=2, best_round=1)
        assert admin("jobs", "cancel", job_id).exit_code == 0
        federation.look()
        assert admin("jobs", "retry", job_id, "--round", "0").exit_code == 0
        found = shown(admin, job_id)["north"]
        assert (found["round"], found["eval_loss"], found["rows"]) == (0, 3.0, 90)
        assert "best round" not in admin("jobs", "show", job_id).out

    def test_show_every_round_from_before_training_on(self, admin: Terminal, federation: Federation) -> None:
        job_id = choosing(federation)
        for number, loss in enumerate((3.0, 1.5)):
            send(federation, "north", job_id, number=number, eval_rows=9, eval_loss=loss, f1_1=loss / 4)
        rows = admin("jobs", "results", job_id, "--every-round", "--json").json
        assert [(row["silo"], row["round"], row["eval_loss"]) for row in rows] == [
            ("north", 0, 3.0),
            ("north", 1, 1.5),
            ("south", None, None),
        ]
        assert shown(admin, job_id)["north"]["eval_loss_before"] == 3.0
        assert admin("jobs", "results", job_id, "--every-round").out.count("yes") == 2

    def test_end_with_all_silos_that_tell(self, admin: Terminal, federation: Federation) -> None:
        job_id = choosing(federation)
        for silo, rows, loss, right in (("north", 10, 1.0, 1.0), ("south", 30, 2.0, 0.0)):
            numbers = {"eval_rows": rows, "eval_tokens": 2 * rows, "eval_loss": loss, "accuracy": right}
            send(federation, silo, job_id, number=1, **numbers)
        table = admin("jobs", "results", job_id).out
        [line] = [line for line in table.splitlines() if line.startswith("all that tell")]
        assert line.split()[-5:] == ["1", "40", "80", "1.7500", "0.2500"]
        assert "rouge_1" not in table, "what no silo told has no column"

    def test_say_what_is_withheld_also_after_numbers_were_told(
        self, admin: Terminal, federation: Federation
    ) -> None:
        job_id = choosing(federation)
        send(federation, "north", job_id, number=1, eval_rows=9, eval_loss=2.0, accuracy=0.5)
        send(federation, "north", job_id, number=2, eval_rows=4, eval_withheld_below=5)
        found = shown(admin, job_id)["north"]
        assert (found["withheld"], found["eval_loss"], found["accuracy"]) == ("fewer than 5 rows", None, None)
        assert "fewer than 5 rows" in admin("jobs", "results", job_id).out

    def test_tell_of_each_answer_by_its_key(self, admin: Terminal, federation: Federation) -> None:
        job_id = choosing(federation)
        send(federation, "north", job_id, number=1, eval_loss=2.0, f1_macro=0.5, f1_1=0.25, precision_1=0.0)
        found = shown(admin, job_id)["north"]
        assert found["f1_macro"] == 0.5
        assert found["answers"] == {"yes": {"precision": 0.0, "recall": None, "f1": 0.25}}
        assert "yes" in admin("jobs", "results", job_id).out

    def test_of_another_task_have_no_answers(self, admin: Terminal, federation: Federation) -> None:
        job_id = federation.running()
        send(federation, "north", job_id, number=1, eval_loss=2.0)
        found = shown(admin, job_id)["north"]
        assert (found["eval_loss"], found["accuracy"], found["answers"]) == (2.0, None, {})
