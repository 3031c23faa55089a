"""The memory benchmark: the theory by hand on one small model, its row, and a tiny run of both sides."""

import json
from pathlib import Path

import pytest

from bench import agent_memory
from bench.agent_memory import Comparison, Party
from bench.cases import Case
from bench.footprint import Theory, theory_of
from bench.model_folder import write_model
from splitlearn.planning import ModelFolder, Role

CASE = Case(
    dim=32, layers=4, adapter="lora", clip=None, vocab_size=64, num_heads=2, batch_size=2, max_tokens=16
)
EMBEDDING = HEAD = 64 * 32
LAYER = 4 * 32 * 32 + 3 * 32 * 96 + 2 * 32  # attention, feed-forward, two norms
LORA = 2 * 8 * (32 + 32)  # rank 8 on q_proj and v_proj


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    path = tmp_path_factory.mktemp("models") / "llama"
    write_model(CASE, path)
    return ModelFolder.open(path)


class TestTheory:
    def test_an_agent_holds_two_layers_embedding_and_head(self, folder: ModelFolder) -> None:
        spec = CASE.spec(model_folder=folder.path, num_steps=1)
        theory = theory_of(folder, (Role.BOTTOM, Role.TOP), spec)
        assert theory.weights == 4 * (EMBEDDING + HEAD + 32 + 2 * (LAYER + LORA))
        assert theory.gradients == 4 * 2 * LORA
        assert theory.optimizer == 2 * theory.gradients
        assert theory.logits == 3 * 2 * 16 * 64 * 4

    def test_a_client_holds_all_layers(self, folder: ModelFolder) -> None:
        spec = CASE.spec(model_folder=folder.path, num_steps=1)
        theory = theory_of(folder, tuple(Role), spec)
        assert theory.weights == 4 * (EMBEDDING + HEAD + 32 + 4 * (LAYER + LORA))
        assert theory.gradients == 4 * 4 * LORA

    def test_who_has_no_head_has_no_logits(self, folder: ModelFolder) -> None:
        spec = CASE.spec(model_folder=folder.path, num_steps=1)
        assert theory_of(folder, (Role.TRUNK,), spec).logits == 0


class TestComparison:
    def test_a_row_holds_measured_and_expected_ratio(self) -> None:
        agent = Party(imports_bytes=100, peak_bytes=150, theory=Theory(10, 1, 2, 3, 4))
        client = Party(imports_bytes=100, peak_bytes=600, theory=Theory(300, 1, 2, 93, 4))
        row = Comparison(CASE, agent, client, training_bytes=140, supervisor_bytes=50).row()
        assert row["ratio"] == 0.25
        assert row["theory_ratio"] == 120 / 500
        assert row["theory_ratio_without_imports"] == 20 / 400
        assert row["agent_supervisor_peak_bytes"] == 50


class TestMain:
    @pytest.mark.slow
    @pytest.mark.long
    def test_measures_an_agent_and_a_client(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "memory.json"
        arguments = ["--dim", "64", "--layers", "3", "--steps", "1", "--threads", "1", "--json", str(path)]
        assert agent_memory.main(arguments) == 0
        [row] = json.loads(path.read_text())["rows"]
        for party in ("agent", "client"):
            assert row[party]["imports_bytes"] < row[party]["peak_bytes"]
        assert row["ratio"] == row["agent"]["peak_bytes"] / row["client"]["peak_bytes"]
        assert "in theory" in capsys.readouterr().out
