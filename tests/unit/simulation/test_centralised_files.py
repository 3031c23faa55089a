"""What the reference process is asked and answers, through its files."""

from pathlib import Path

from splitlearn.simulation.centralised_files import (
    CentralisedAnswer,
    CentralisedRequest,
    RequestedSilo,
    SiloAnswer,
    read_document,
    write_document,
)
from splitlearn.spec import JobSpec
from splitlearn.tasks import IGNORED, Example, Score, TokenRow

ROW = TokenRow((3, 4), (IGNORED, 4))
OWN = Example(
    (ROW, ROW), 1, bytes(range(16)), group=bytes(16), exact=(False, True), token_f1=(0.1 + 0.2, 1.0)
)
SPEC = JobSpec.parse({"model": "m", "silos": [{"name": "a", "dataset": "d"}]})


def test_a_row_with_candidates_of_its_own_comes_back_as_it_was(tmp_path: Path) -> None:
    silo = RequestedSilo(name="a", training=(ROW,), heldout=(OWN,))
    request = CentralisedRequest(spec=SPEC, model_folder=tmp_path, silos=(silo,))
    write_document(tmp_path / "request", request)
    assert read_document(tmp_path / "request", CentralisedRequest) == request


def test_scores_come_back_to_the_bit(tmp_path: Path) -> None:
    scores = (Score("f1", 1 / 3, 7),)
    silo = SiloAnswer(name="a", eval_loss=1.0, num_tokens=3, accuracy=0.5, scores=scores)
    answer = CentralisedAnswer(losses=(1.0,), eval_loss=1.0, seconds_per_step=0.1, silos=(silo,))
    write_document(tmp_path / "answer", answer)
    assert read_document(tmp_path / "answer", CentralisedAnswer) == answer
