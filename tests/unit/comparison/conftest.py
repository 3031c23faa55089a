"""A model and a specification for comparisons that really run."""

from pathlib import Path

import pytest

from splitlearn.simulation.tiny_models import TinySize, build_tiny_model

SIZE = TinySize(dim=32, mlp_dim=48, num_layers=4, num_heads=2, vocab_size=300, max_positions=64)
WORDS = ("red", "green", "blue", "grey")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's smallest model, with a tokenizer for the rows of ``spec_path``."""
    texts = [f"the {word} house" for word in WORDS]
    cache = tmp_path_factory.mktemp("models")
    return build_tiny_model("tiny-llama", texts=texts, cache=cache, seed=0, size=SIZE)


@pytest.fixture
def spec_path(tmp_path: Path, model: Path) -> Path:
    """A specification of four silos, each with rows in a file of its own."""
    for number, word in enumerate(WORDS):
        rows = [f"the {word} house {other} {index}" for index, other in enumerate(WORDS * (2 + number))]
        (tmp_path / f"{word}.txt").write_text("\n".join(rows))
    path = tmp_path / "houses.yaml"
    path.write_text(
        f"model: {model}\n"
        "adapter: {kind: full}\n"
        "silo_blocks: averaged\n"
        "data: {red: red.txt, green: green.txt, blue: blue.txt, grey: grey.txt}\n"
        "rounds: 2\n"
        "steps_per_round: 2\n"
        "batch_size: 2\n"
        "max_tokens: 12\n"
        "evaluation: {holdout: 0.3, max_rows: 4}\n"
        "seed: 3\n"
    )
    return path
