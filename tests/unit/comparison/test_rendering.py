import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from splitlearn.comparison.markdown import results_table, to_markdown
from splitlearn.comparison.modes import LeftOut
from splitlearn.comparison.page import to_page
from splitlearn.comparison.plan import Run
from splitlearn.comparison.plots import figures_of
from splitlearn.comparison.run_files import Overall
from splitlearn.comparison.runner import Failure
from splitlearn.comparison.tables import NOTHING, size, tables_of
from tests.unit.comparison.builders import job, modes, report, run_result

CHOICES = report(
    [
        run_result(mode, seed, loss + seed / 10, accuracy=0.5)
        for seed in (1, 2)
        for mode, loss in (("centralised", 1.0), ("client-batching", 1.1), ("alone:a", 1.3), ("alone:b", 1.5))
    ]
)
TEXTS = report([run_result("centralised", 1, 1.0), run_result("serial", 1, 0.5)])
SUMMARIES = report(
    [
        run_result("centralised", 1, 1.0, scores={"rouge_1": 0.3, "bleu_4": 0.1}),
        run_result("centralised", 2, 1.0, scores={"rouge_1": 0.5, "bleu_4": 0.1}),
        run_result("serial", 1, 0.5, scores={"rouge_1": 0.2}),
    ]
)
WATCHED = report(
    [
        run_result("centralised", 1, 1.0, last_round=3, result_round=2),
        run_result("serial", 1, 0.5, last_round=1, result_round=0),
        run_result("client-batching", 1, 0.5),
    ],
    base=job(seed=1, evaluation={"every_rounds": 1, "patience_evaluations": 1}),
)
FAILURE = Failure(
    Run(modes("serial")[0], 1, job(), job(), "f"), code="process", message="<killed> & gone", exit_code=13
)


class TestTables:
    def test_show_differences_accuracy_and_who_is_better_than_alone(self) -> None:
        results = tables_of(CHOICES)[0]
        assert results.heads == (
            "mode",
            "evaluation loss",
            "to centralised",
            "accuracy",
            "to centralised, points",
            "better than the mean silo alone",
            "seeds",
        )
        batching = dict(zip(results.heads, results.rows[1], strict=True))
        assert batching["evaluation loss"] == "1.2500 [1.2038, 1.2963]"
        assert batching["to centralised"].startswith("+8.71 %")  # the mean of 0.1 / 1.1 and 0.1 / 1.2
        assert batching["better than the mean silo alone"] == "2 of 2 seeds"
        assert results.rows[-1][:2] == ("mean silo alone", "1.5500 [1.5037, 1.5963]")

    def test_begin_with_what_was_before_training(self) -> None:
        before = Overall(metric_name="accuracy", metric=0.25, eval_loss=3.0)
        whole = run_result("centralised", 1, 1.0, accuracy=0.5, before=before)
        found = report([whole, run_result("serial", 1, 1.0, accuracy=0.5)])
        results = tables_of(found)[0]
        first = dict(zip(results.heads, results.rows[0], strict=True))
        assert (first["mode"], first["evaluation loss"], first["accuracy"], first["seeds"]) == (
            "before training",
            "3.0000",
            "25.0 %",
            "1",
        )
        assert found.to_json()["before_training"]["eval_loss"]["mean"] == 3.0

    def test_of_a_task_without_another_metric_show_the_loss_alone(self) -> None:
        assert tables_of(TEXTS)[0].heads == ("mode", "evaluation loss", "to centralised", "seeds")

    def test_of_summaries_show_their_scores(self) -> None:
        (texts,) = (table for table in tables_of(SUMMARIES) if table.key == "texts")
        assert texts.heads == ("mode", "ROUGE-1", "BLEU-4")
        assert texts.rows == (
            ("centralised", "40.0 % [30.8, 49.2]", "10.0 % [10.0, 10.0]"),
            ("serial", "20.0 %", NOTHING),
        )
        assert not [table for table in tables_of(CHOICES) if table.key == "texts"]

    def test_tell_rounds_where_evaluations_decide(self) -> None:
        [of_watched, of_others] = (
            next(table for table in tables_of(each) if table.key == "budgets") for each in (WATCHED, CHOICES)
        )
        assert of_watched.heads[-2:] == ("rounds", "result of round")
        assert [row[-2:] for row in of_watched.rows] == [("3", "2"), ("1", "0"), (NOTHING, NOTHING)]
        assert "a silo alone by its own" in of_watched.note
        assert "Every mode reads as many rows" in of_others.note

    def test_have_a_cell_for_every_head(self) -> None:
        for table in (*tables_of(CHOICES), *tables_of(TEXTS), *tables_of(WATCHED)):
            assert {len(row) for row in table.rows} == {len(table.heads)}

    @pytest.mark.parametrize(
        ("num_bytes", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB")]
    )
    def test_show_sizes_in_units(self, num_bytes: int, text: str) -> None:
        assert size(num_bytes) == text


class TestMarkdown:
    def test_has_every_table(self) -> None:
        text = to_markdown(CHOICES)
        assert [table.title for table in tables_of(CHOICES)] == re.findall(r"^## (.*)$", text, re.MULTILINE)

    def test_names_runs_that_failed(self) -> None:
        assert "- serial, seed 1: <killed> & gone" in to_markdown(
            report([run_result("serial", 2, 1.0)], failures=[FAILURE])
        )

    def test_of_nothing_says_so(self) -> None:
        assert results_table(report([], failures=[FAILURE])) == "No run was finished."


class TestPage:
    def test_needs_no_other_file_and_no_script(self) -> None:
        page = to_page(CHOICES)
        assert not re.search(r"<script|<link|<img|@import|url\(|src=", page)
        assert re.findall(r"https?://[^\"<]*", page) == ["http://www.w3.org/2000/svg"] * len(
            figures_of(CHOICES)
        )

    def test_escapes_what_it_is_told(self) -> None:
        page = to_page(report([], failures=[FAILURE]))
        assert "&lt;killed&gt; &amp; gone" in page
        assert "<killed>" not in page

    @pytest.mark.parametrize("of", [CHOICES, TEXTS], ids=["choice", "text"])
    def test_plots_are_xml_with_title_and_description(self, of: object) -> None:
        assert isinstance(of, type(CHOICES))
        for figure in figures_of(of):
            root = ET.fromstring(figure.svg)  # noqa: S314 - our own
            space = "{http://www.w3.org/2000/svg}"
            assert root.find(f"{space}title") is not None
            description = root.find(f"{space}desc")
            assert description is not None
            assert description.text

    def test_every_mark_lies_in_the_drawing(self) -> None:
        for figure in figures_of(CHOICES):
            root = ET.fromstring(figure.svg)  # noqa: S314 - our own
            _, _, width, height = map(float, root.attrib["viewBox"].split())
            for element in root.iter():
                for name, limit in (
                    ("x", width),
                    ("x1", width),
                    ("cx", width),
                    ("y", height),
                    ("y1", height),
                ):
                    assert 0 <= float(element.get(name, "0")) <= limit


class TestLeftOut:
    """A mode that the roster cannot have, and that nobody asked for."""

    REPORT = replace(TEXTS, left_out=(LeftOut("hierarchical-4", "more replicas than 3 silos"),))

    def test_is_noted_in_report_and_page(self) -> None:
        note = "Note: hierarchical-4 is left out: more replicas than 3 silos."
        assert note in to_markdown(self.REPORT)
        assert note in to_page(self.REPORT)
        assert "left out" not in to_markdown(TEXTS)

    def test_stands_in_the_numbers(self) -> None:
        assert self.REPORT.to_json()["left_out"] == [
            {"mode": "hierarchical-4", "reason": "more replicas than 3 silos"}
        ]


class TestJson:
    def test_has_what_scripts_read(self) -> None:
        content = json.loads(json.dumps(CHOICES.to_json(), allow_nan=False))
        keys = {"task", "mode", "seed", "metric", "eval_loss", "seconds", "bytes"}
        assert all(keys <= run.keys() for run in content["runs"])
        assert [run["mode"] for run in content["runs"]][:4] == [
            "centralised",
            "client-batching",
            "alone:a",
            "alone:b",
        ]
        assert content["seeds"] == [1, 2]
        assert content["summary"][1]["relative_difference_to_centralised"]["mean"] > 0

    def test_names_what_failed(self) -> None:
        assert report([], failures=[FAILURE]).to_json()["failures"] == [
            {"mode": "serial", "seed": 1, "code": "process", "message": "<killed> & gone"}
        ]
