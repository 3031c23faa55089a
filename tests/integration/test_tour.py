"""The tour of the documentation, run as it stands there: `trunkline up`, four agents, and curl."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM

from splitlearn.processes import free_port

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
LIMIT_SECONDS = 400
SILOS = [f"hospital-{number}" for number in range(1, 5)]


@pytest.fixture(scope="module")
def tour(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the tour's blocks as one script, and return its folder."""
    page = (REPOSITORY / "docs" / "tour.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) > 6
    folder = tmp_path_factory.mktemp("tour")
    script = folder / "tour.sh"
    script.write_text("set -euo pipefail\n" + "\n".join(blocks))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRUNKLINE_")}  # noqa: TID251
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",
        "TRUNKLINE_TEST_DATA": str(test_data),
        "HERE": str(folder),
        "PORT": str(free_port()),
        "GATEWAY_PORT": str(free_port()),
    }
    shell = subprocess.Popen(  # noqa: S603 - the page's own commands
        ["bash", str(script)],  # noqa: S607 - wherever it lies
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = shell.communicate(timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(shell.pid, signal.SIGTERM)
        output, _ = shell.communicate()
        pytest.fail(f"the tour took more than {LIMIT_SECONDS} s:\n{output}")
    if shell.returncode != 0:
        os.killpg(shell.pid, signal.SIGTERM)
        logs = "\n".join(path.read_text()[-2000:] for path in sorted(folder.rglob("*.log")))
        pytest.fail(f"the tour ended with {shell.returncode}:\n{output}\n{logs}")
    return folder


def test_both_jobs_complete(tour: Path) -> None:
    for name in ("events.txt", "review-events.txt"):
        events = [
            json.loads(line[6:]) for line in (tour / name).read_text().splitlines() if line[:6] == "data: "
        ]
        states = [event["to"] for event in events if event["kind"] == "job_state"]
        assert states[-2:] == ["finishing", "completed"]
        assert [event["number"] for event in events] == sorted({event["number"] for event in events})


def test_every_silo_has_its_numbers(tour: Path) -> None:
    points = json.loads((tour / "metrics.json").read_text())["items"]
    losses = {
        silo: [p["value"] for p in points if p["party"] == f"silo:{silo}" and p["name"] == "loss"]
        for silo in SILOS
    }
    assert {silo: len(found) for silo, found in losses.items()} == dict.fromkeys(SILOS, 20)
    for found in losses.values():
        assert 0.5 < found[-1] < 3.0  # nats per token of a model that has read such stories, not noise


def test_results_load_in_plain_libraries(tour: Path, test_data: Path) -> None:
    whole = AutoModelForCausalLM.from_pretrained(tour / "stories-model")
    assert whole.config.num_hidden_layers == 5
    base = AutoModelForCausalLM.from_pretrained(test_data / "models" / "stories260K")
    adapted = PeftModel.from_pretrained(base, tour / "reviews-adapter")
    trained = {name: tensor for name, tensor in adapted.named_parameters() if "lora_B" in name}
    assert trained
    assert all(tensor.abs().max() > 0 for tensor in trained.values())


def test_nothing_is_left_running(tour: Path) -> None:
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            lines.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    assert [line for line in lines if str(tour) in line] == []
    assert not (tour / "server" / "up.json").exists()
