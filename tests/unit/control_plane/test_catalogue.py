"""The page about what a silo tells the control plane is what the schema and the agent say."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from client_agent import reporting
from client_agent.traffic_record import Crossed
from client_agent.training_loop import values_of_round
from splitlearn.control_plane import client
from splitlearn.control_plane.catalogue import SAID, SILO_EVENTS, SILO_METRICS, catalogue
from splitlearn.control_plane.schemas import Body
from splitlearn.parties import Evaluated, StepDone
from splitlearn.tasks import DataReport, Score

PAGE = Path(__file__).parents[3] / "docs" / "what-the-control-plane-learns.md"
REPORT = DataReport(**dict.fromkeys(DataReport.__dataclass_fields__, 1))
STEP = StepDone(
    "a", round=1, step=2, loss=1.0, num_label_tokens=3, num_valid_tokens=4, applied=True, seconds=5.0
)
SCORES = (
    *("f1", "f1_macro", "exact_match", "token_f1", "precision_3", "recall_3", "f1_3"),
    *("rouge_1", "rouge_2", "rouge_l", "bleu_4"),
)
EVALUATED = Evaluated(
    "a", round=1, loss=1.0, num_tokens=2, accuracy=0.5, scores=tuple(Score(name, 0.5, 9) for name in SCORES)
)


def test_page_is_what_the_schema_says() -> None:
    assert PAGE.read_text() == catalogue()


@pytest.mark.parametrize("body", SAID, ids=lambda body: body.__name__)
def test_every_field_is_described_and_no_other_is_taken(body: type[BaseModel]) -> None:
    assert set(SAID[body]) == set(body.model_fields)
    assert body.model_config["extra"] == "forbid"


def test_every_body_that_a_silo_may_send_is_there() -> None:
    sent_by_workers = {"CapabilitiesBody", "CommitBody", "ReleaseBody", "RenewBody"}
    sent_by_workers |= {"GenerationReleaseBody", "GenerationRenewBody"}
    named = set(re.findall(r"\b[A-Z]\w+Body\b", Path(client.__file__).read_text()))
    described = {body.__name__ for body in SAID if issubclass(body, Body)}
    assert named - sent_by_workers <= described


def test_the_agent_sends_exactly_these_numbers() -> None:
    points = [
        *reporting.points_of_report(REPORT),
        *reporting.points_of_progress(STEP),
        *reporting.points_of_progress(EVALUATED),
        *reporting.points_of_progress(EVALUATED, min_rows=100),
        *reporting.points_of_round(1, values_of_round(Crossed(), round_trip_seconds=0.1)),
    ]
    assert {re.sub(r"^(precision|recall|f1)_[0-9]+$", r"\1_N", point.name) for point in points} == set(
        SILO_METRICS
    )


def test_the_agent_tells_of_exactly_these_events() -> None:
    folder = Path(reporting.__file__).parent
    told = {
        word
        for path in folder.rglob("*.py")
        for word in re.findall(r'_?job_log\.tell\(\s*"(\w+)"', path.read_text(encoding="utf-8"))
    }
    assert told == set(SILO_EVENTS)
