"""Tiny models: made whole, the same from the same arguments, and plain Hugging Face folders."""

import hashlib
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from splitlearn.errors import DataError, ModelError, StorageError
from splitlearn.simulation.tiny_models import TINY_MODELS, TinyModelName, TinySize, build_tiny_model
from splitlearn.tasks import encode_texts, load_tokenizer, padding_id

SIZE = TinySize(dim=32, mlp_dim=48, num_layers=3, num_heads=2, vocab_size=300, max_positions=64)
TEXTS = ("the cat sat on the mat", "the dog sat on the log", "a cat and a dog")


def build(cache: Path, name: TinyModelName = "tiny-llama", seed: int = 0) -> Path:
    return build_tiny_model(name, texts=TEXTS, cache=cache, seed=seed, size=SIZE)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize("name", TINY_MODELS)
class TestFolder:
    def test_holds_what_a_model_folder_holds(self, tmp_path: Path, name: TinyModelName) -> None:
        assert set(digests(build(tmp_path, name))) == {
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
        }

    def test_loads_in_transformers_with_every_weight(self, tmp_path: Path, name: TinyModelName) -> None:
        model, info = AutoModelForCausalLM.from_pretrained(build(tmp_path, name), output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        assert model.config.model_type == name.removeprefix("tiny-")
        assert model.dtype == torch.float32
        logits = model(input_ids=torch.tensor([[0, 5, 6]])).logits
        assert logits.shape == (1, 3, 300)
        # Rows of the head have unit length on average and the last norm gives each state length sqrt(dim).
        assert 0.5 < logits.std() < 2

    def test_is_the_same_when_made_again(self, tmp_path: Path, name: TinyModelName) -> None:
        assert digests(build(tmp_path / "here", name)) == digests(build(tmp_path / "there", name))


def test_is_the_same_in_another_process(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; "
        "from splitlearn.simulation.tiny_models import *; "
        f"build_tiny_model('tiny-llama', texts={TEXTS!r}, cache=Path(sys.argv[1]), size={SIZE!r})"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "there")], check=True)  # noqa: S603 - our own
    here = build(tmp_path / "here")
    assert digests(tmp_path / "there" / here.name) == digests(here)


class TestTokenizer:
    def test_any_text_comes_back(self, tmp_path: Path) -> None:
        folder = build(tmp_path)
        text = "the cat, naïve 😀\n\ttabs  and </s-> \x7f"
        ids = encode_texts([text], tokenizer=load_tokenizer(folder), vocab_size=300)[0]
        assert PreTrainedTokenizerFast.from_pretrained(folder).decode(ids) == text

    def test_learns_merges_from_the_texts(self, tmp_path: Path) -> None:
        tokenizer = load_tokenizer(build(tmp_path))
        assert len(encode_texts(["the cat sat"], tokenizer=tokenizer)[0]) < 6

    def test_special_tokens(self, tmp_path: Path) -> None:
        tokenizer = load_tokenizer(build(tmp_path))
        assert (tokenizer.bos_token_id, tokenizer.eos_token_id, padding_id(tokenizer)) == (0, 1, 2)


class TestReuse:
    def test_same_arguments_give_the_folder_that_is_there(self, tmp_path: Path) -> None:
        first = build(tmp_path)
        made_at = (first / "model.safetensors").stat().st_mtime_ns
        assert build(tmp_path) == first
        assert (first / "model.safetensors").stat().st_mtime_ns == made_at

    def test_other_arguments_give_another(self, tmp_path: Path) -> None:
        folders = {
            build(tmp_path),
            build(tmp_path, seed=1),
            build(tmp_path, "tiny-glm"),
            build_tiny_model("tiny-llama", texts=TEXTS[:2], cache=tmp_path, size=SIZE),
        }
        assert len(folders) == 4

    def test_seed_changes_the_weights_alone(self, tmp_path: Path) -> None:
        first, second = digests(build(tmp_path)), digests(build(tmp_path, seed=1))
        assert {name for name in first if first[name] != second[name]} == {"model.safetensors"}

    def test_callers_chance_is_left_alone(self, tmp_path: Path) -> None:
        torch.manual_seed(3)
        expected = torch.rand(1)
        torch.manual_seed(3)
        build(tmp_path)
        assert torch.rand(1) == expected


class TestRefusals:
    def test_unknown_name(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="no tiny model 'tiny-gpt'; choose one of tiny-llama, tiny-glm"):
            build_tiny_model("tiny-gpt", texts=TEXTS, cache=tmp_path)  # type: ignore[arg-type]

    @pytest.mark.parametrize("texts", [(), ("", "")])
    def test_no_text(self, tmp_path: Path, texts: tuple[str, ...]) -> None:
        with pytest.raises(DataError, match="no text to train the tokenizer on"):
            build_tiny_model("tiny-llama", texts=texts, cache=tmp_path)

    def test_small_vocabulary(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"vocab_size: 258 is too small.*at least 259"):
            build_tiny_model("tiny-llama", texts=TEXTS, cache=tmp_path, size=TinySize(vocab_size=258))

    def test_unwritable_cache_leaves_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StorageError, match="cannot write the model"):
            build(tmp_path / "file")
        assert [path.name for path in tmp_path.iterdir()] == ["file"]

    @pytest.mark.parametrize("max_file_bytes", [2_000, 50_000], ids=["the tokenizer", "the weights"])
    def test_full_disk_leaves_nothing(self, tmp_path: Path, max_file_bytes: int) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, hard))
        try:
            with pytest.raises(StorageError, match=r"cannot write the model .*File too large.*; free space"):
                build(tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert list(tmp_path.iterdir()) == []

    def test_interrupted_making_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("splitlearn.simulation.tiny_models.save_file", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path)
        assert list(tmp_path.iterdir()) == []
